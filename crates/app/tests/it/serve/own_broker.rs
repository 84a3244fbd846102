//! A database that is stopped, killed and started again under `sql` steps, and a broker where a certificate is the login.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;
use warren_testkit::pg::Server;
use warren_testkit::rabbit::{self, Broker, Vhost};
use warren_testkit::{tls, wait_until};

use super::served::{SOON, Served, publish};

/// A trigger that writes the number of each message into a table.
fn served(vhost: &Vhost, server: &Server, keys: &str) -> Served {
    vhost.queue("in");
    server.sql("CREATE TABLE taken (id int NOT NULL)");
    let (url, management, source) = (vhost.url(), vhost.management().url(), server.url());
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}");
    let pipeline = format!(
        "\nsources:\n  shop: {{type: postgres, url: \"{source}\"}}\npipelines:\n  work:\n    - sql:\n        source: shop\n\
         \x20       statement: INSERT INTO taken (id) VALUES ($1)\n        params: '[.body | tonumber]'\n"
    );
    Served::with_pipeline(&broker, keys, &pipeline)
}

/// How many messages were taken, each counted once.
fn taken(server: &Server) -> usize {
    server.sql("SELECT count(DISTINCT id) FROM taken").trim().parse().unwrap()
}

/// What its attempts ended in, for each message, oldest first.
fn statuses(served: &Served) -> BTreeMap<usize, Vec<String>> {
    let mut statuses: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for attempt in served.attempts().iter().rev() {
        let number = attempt["body"].as_str().unwrap().parse().unwrap();
        statuses.entry(number).or_default().push(attempt["status"].as_str().unwrap().to_owned());
    }
    statuses
}

/// The connections that nobody uses are found broken before anything is sent over them.
#[test]
fn a_database_that_was_restarted_meanwhile_costs_no_attempt() {
    let (vhost, server) = (rabbit::vhost(), Server::start());
    let served = served(&vhost, &server, "");
    let serving = served.consume();
    let take = |from: usize| {
        publish(&vhost, (from..from + 100).map(|at| at.to_string()));
        wait_until("all are taken", SOON, || taken(&server) == from + 100);
        vhost.wait_for_depth("in", 0, SOON);
    };
    take(0);
    for (from, end) in [(100, Server::stop as fn(&Server)), (200, Server::kill)] {
        end(&server);
        server.start_again();
        take(from);
    }
    assert!(serving.number("warren_tries_in_place_total{trigger=\"orders\"}") < 0.1);
    assert_eq!(serving.stop().code, Some(0));
    let statuses = statuses(&served);
    assert_eq!(statuses.len(), 300);
    assert!(statuses.values().all(|statuses| statuses == &["ok"]), "{statuses:?}");
    assert_eq!(server.sql("SELECT count(*) FROM taken").trim(), "300");
}

/// Whatever the database says while it goes and comes is no message's fault: none is given up, and what had to be tried again is told as that.
#[test]
fn a_database_that_restarts_under_load_loses_nothing() {
    const COUNT: usize = 4000;
    let (vhost, server) = (rabbit::vhost(), Server::start());
    let served = served(&vhost, &server, &format!("retry: {{delays: [{}]}}", ["500ms"; 20].join(", ")));
    let serving = served.consume();
    publish(&vhost, (0..COUNT).map(|at| at.to_string()));
    for (round, end) in [Server::stop, Server::kill].into_iter().enumerate() {
        wait_until("some are taken", SOON, || taken(&server) >= (round + 1) * COUNT / 4);
        let tries = || serving.number("warren_tries_in_place_total{trigger=\"orders\"}");
        let before = tries();
        end(&server);
        wait_until("it is noticed", SOON, || tries() > before);
        server.start_again();
    }
    wait_until("all are taken", SOON, || taken(&server) == COUNT);
    for queue in ["in", "warren.delay.in.500"] {
        wait_until("the queues are empty", SOON, || {
            vhost.look(queue).is_none_or(|queue| queue["messages"].as_u64() == Some(0))
        });
    }
    assert_eq!(serving.stop().code, Some(0));
    let statuses = statuses(&served);
    assert_eq!(statuses.len(), COUNT);
    for (number, statuses) in &statuses {
        let (last, before) = statuses.split_last().unwrap();
        assert_eq!(last, "ok", "{number}: {statuses:?}");
        assert!(
            before.iter().all(|status| status == "retried" || status == "held"),
            "{number}: {statuses:?}"
        );
    }
    let more = statuses.values().filter(|statuses| statuses.len() > 1).count();
    let twice: usize = server.sql("SELECT count(*) FROM taken").trim().parse().unwrap();
    println!("{more} of {COUNT} took more than one attempt; {} were taken twice", twice - COUNT);
    // Taken twice is only one whose commit was answered to nobody, of those that ran at once.
    assert!(twice - COUNT <= 2 * 10, "{twice}");
    assert!(vhost.look("dead").is_none_or(|queue| queue["messages"] == 0));
}

/// A trigger whose broker knows it by this certificate and key.
fn certified(vhost: &Vhost, (certificate, key): (PathBuf, PathBuf)) -> Served {
    let (url, management) = (vhost.tls_url().replace("guest:guest@", ""), vhost.management().url());
    let (ca, certificate, key) = (tls::ca(), certificate.display(), key.display());
    let tls = format!("{{ca: \"{}\", cert: \"{certificate}\", key: \"{key}\"}}", ca.display());
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\", tls: {tls}}}");
    Served::with(&broker, "")
}

/// It (1.) connects, consumes and publishes as the user of its certificate's name. A certificate whose name no user has (2.), and one of an
/// authority that the broker does not trust (3.), are told with where, why and what to do.
#[test]
fn a_certificate_is_the_login_and_a_wrong_one_is_told() {
    let broker = Broker::start_with_certificates_as_logins();
    let vhost = broker.vhost();
    for queue in ["in", "out"] {
        vhost.queue(queue);
    }
    broker.certified_user("warren_cert");
    vhost.permit("warren_cert", ".*", ".*", ".*");
    let served = certified(&vhost, (tls::client_certificate(), tls::client_key())); // 1.
    let checked = served.program.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"good", &json!({})));
    vhost.wait_for_depth("out", 1, SOON);
    vhost.wait_for_depth("in", 0, SOON);
    wait_until("the broker lists it", SOON, || !vhost.connections().is_empty());
    for connection in vhost.connections() {
        let (user, by) = (&connection["user"], &connection["auth_mechanism"]);
        assert_eq!((user, by), (&json!("warren_cert"), &json!("EXTERNAL")), "{connection:#}");
    }
    assert_eq!(serving.stop().code, Some(0));
    let address = vhost.tls_url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    for (certificate, why, way_out) in [
        (
            tls::nobody(),
            "Login was refused using authentication mechanism EXTERNAL",
            "a user of the certificate's name",
        ), // 2.
        // The connection may break before the broker's word, `UnknownCA`, is here.
        (tls::stranger(), "", "signed by an authority it trusts"), // 3.
    ] {
        let refused = certified(&vhost, certificate).program.run(&["check"]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        for part in [&*address, why, way_out] {
            assert!(said.contains(part), "{part}: {refused:#?}");
        }
    }
}
