//! What `warren check` finds of a trigger's queue.

use serde_json::json;
use warren_testkit::rabbit::{self, Vhost};

use super::served::Served;

/// The findings of a configuration: code and message.
fn findings(served: &Served, code: i32) -> Vec<(String, String)> {
    let document = served.program.documents(&["check"], code).pop().unwrap();
    let findings = document["findings"].as_array().unwrap();
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings
        .iter()
        .filter(|finding| text(finding, "subject").starts_with("triggers.orders"))
        .map(|finding| (text(finding, "code"), text(finding, "message")))
        .collect()
}

fn vhost(arguments: &serde_json::Value) -> Vhost {
    let vhost = rabbit::vhost();
    vhost.queue_with("in", arguments);
    vhost.queue("out");
    vhost
}

fn one(served: &Served, code: i32, part: &str) {
    let found = findings(served, code);
    assert!(
        matches!(&found[..], [(code, message)] if code == "queue-misfit" && message.contains(part)),
        "{found:?}"
    );
}

#[test]
fn a_queue_that_fits_is_no_finding() {
    let vhost = vhost(&json!({}));
    let served = Served::rabbit(&vhost, "");
    assert_eq!(findings(&served, 0), []);
    let told = served.program.run(&["check"]);
    assert!(told.stdout.contains("trigger orders: messages are tried again by delay queues"), "{told:#?}");
}

#[test]
fn a_missing_queue_is_found() {
    let vhost = rabbit::vhost();
    let served = Served::rabbit(&vhost, "");
    assert_eq!(findings(&served, 1)[0].0, "no-such-queue");
}

#[test]
fn a_missing_dead_letter_exchange_is_found_where_one_is_needed() {
    let vhost = vhost(&json!({}));
    let served = Served::rabbit(&vhost, "dead_letter: broker");
    one(&served, 1, "no dead-letter exchange");
}

#[test]
fn a_dead_letter_exchange_that_loses_is_found() {
    let at_most_once = vhost(&json!({"x-dead-letter-exchange": "amq.fanout"}));
    one(&Served::rabbit(&at_most_once, "dead_letter: broker"), 0, "at most once");
    let at_least_once = vhost(&json!({
        "x-queue-type": "quorum", "x-dead-letter-exchange": "amq.fanout", "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
    }));
    assert_eq!(findings(&Served::rabbit(&at_least_once, "dead_letter: broker"), 0), []);
}

#[test]
fn a_dead_letter_exchange_that_does_not_exist_is_found() {
    let vhost = vhost(&json!({"x-dead-letter-exchange": "gone"}));
    one(&Served::rabbit(&vhost, "dead_letter: broker"), 1, "its dead-letter exchange `gone` does not exist");
    let by_policy = self::vhost(&json!({}));
    by_policy.policy("p", "^in$", &json!({"dead-letter-exchange": "amq.fanout"}));
    one(&Served::rabbit(&by_policy, "dead_letter: broker"), 0, "at most once");
}

#[test]
fn a_queue_that_loses_messages_is_found_and_consumed_all_the_same() {
    let vhost = vhost(&json!({"x-max-length": 1000}));
    let served = Served::rabbit(&vhost, "");
    one(&served, 0, "drops its oldest message when it is full");
    drop(served.consume());
}

/// By `check`, with and without the management API, and at start; what is in the stream stays there.
#[test]
fn a_stream_is_refused_by_check_and_at_start() {
    let vhost = vhost(&json!({"x-queue-type": "stream"}));
    for broker in [
        format!("{{type: rabbitmq, url: \"{}\"}}", vhost.url()),
        format!(
            "{{type: rabbitmq, url: \"{}\", management_url: \"{}\"}}",
            vhost.url(),
            vhost.management().url()
        ),
    ] {
        let served = Served::with(&broker, "");
        let checked = served.program.run(&["check"]);
        assert_eq!(checked.code, Some(1), "{checked:#?}");
        assert!(checked.stderr.contains("it is a stream"), "{checked:#?}");
        let serving = served.start();
        serving.wait_for_state("waiting");
        assert_eq!(serving.trigger()["waits_for"]["code"], "queue-misfit", "{}", serving.trigger());
    }
}

#[test]
fn a_delivery_limit_below_our_attempts_is_found() {
    let limited = vhost(&json!({"x-queue-type": "quorum", "x-delivery-limit": 5}));
    one(&Served::rabbit(&limited, ""), 1, "after 5 deliveries");
    assert_eq!(findings(&Served::rabbit(&limited, "retry: {delays: [1s, 2s]}"), 0), []);
}

#[test]
fn a_deadline_longer_than_the_broker_waits_is_found() {
    let vhost = vhost(&json!({}));
    one(&Served::rabbit(&vhost, "max_timeout: 30m"), 0, "acknowledgement");
}

#[test]
fn a_user_id_that_the_broker_would_refuse_is_found() {
    let vhost = vhost(&json!({}));
    vhost.queue("dead");
    let user = vhost.user(".*", ".*", ".*");
    let broker =
        format!("{{type: rabbitmq, url: \"{}\", management_url: \"{}\"}}", user.url, user.management_url);
    let found = |user_id: &str, code: i32| {
        let pipeline = format!(
            "\npipelines:\n  work:\n    - publish: {{to: mq, queue: out, body: '.body', properties: {{user_id: \"{user_id}\"}}}}\n"
        );
        let served = Served::with_pipeline(&broker, "", &pipeline);
        let document = served.program.documents(&["check"], code).pop().unwrap();
        let findings = document["findings"].as_array().unwrap().clone();
        let of_id = |finding: &serde_json::Value| finding["code"] == "invalid-property";
        findings
            .iter()
            .filter(|finding| of_id(finding))
            .map(|finding| finding["severity"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("shop", 1), ["error"]);
    assert_eq!(found(&user.name, 0), [""; 0]);
    assert_eq!(found("{{ message.properties.userId }}", 0), ["warning"]);
    let tags = json!({"password": user.password, "tags": "management,impersonator"});
    vhost.management().request("PUT", &format!("/api/users/{}", user.name), &tags);
    assert_eq!(found("shop", 0), [""; 0]);
}

#[test]
fn a_user_who_may_make_no_queues_has_the_parking_lot() {
    let vhost = vhost(&json!({}));
    vhost.queue("dead");
    let user = vhost.user("^$", ".*", ".*");
    let broker =
        format!("{{type: rabbitmq, url: \"{}\", management_url: \"{}\"}}", user.url, user.management_url);
    let served = Served::with(&broker, "");
    let told = served.program.run(&["check"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.stdout.contains("tried again by"), "{told:#?}");
}

/// What is found of a login with these rights, on a queue `in` that is there and `out` that the pipeline publishes to. The management
/// API is asked as somebody who may see rights.
fn of_rights(configure: &str, write: &str, read: &str, dead_is_there: bool) -> Vec<String> {
    let vhost = vhost(&json!({}));
    if dead_is_there {
        vhost.queue("dead");
    }
    let user = vhost.user(configure, write, read);
    let management = vhost.management().url();
    let broker = format!("{{type: rabbitmq, url: \"{}\", management_url: \"{management}\"}}", user.url);
    let served = Served::with(&broker, "retry: {delays: [1s, 2s]}");
    let document = served.program.run(&["check", "--json"]);
    let document: serde_json::Value = serde_json::from_str(document.stdout.lines().last().unwrap()).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let said = findings.iter().map(|finding| {
        assert_eq!(finding["code"], "access-refused", "{finding}");
        format!("{} {}", finding["severity"].as_str().unwrap(), finding["message"].as_str().unwrap())
    });
    said.map(|text| text.replace(&user.name, "USER")).collect()
}

#[test]
fn rights_that_do_are_no_finding() {
    let found = of_rights("^(warren\\.delay\\.in\\..*|dead)$", "^amq\\.default$", "^in$", false);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_queue_that_may_not_be_read_is_found() {
    assert_eq!(of_rights(".*", ".*", "^out$", true), ["error the user `USER` may not read from queue `in`"]);
}

#[test]
fn an_exchange_that_may_not_be_written_to_is_found_once() {
    let found = of_rights(".*", "^events$", ".*", true);
    let message = "the user `USER` may not write to exchange `amq.default`";
    assert!(found.contains(&format!("error {message}")), "{found:?}");
}

#[test]
fn a_dead_letter_queue_that_may_not_be_made_is_found_where_it_is_missing() {
    let message = "error the user `USER` may not make queue `dead`".to_owned();
    assert_eq!(of_rights("^warren", ".*", ".*", false), [message]);
    assert_eq!(of_rights("^warren", ".*", ".*", true), [""; 0]);
}

#[test]
fn delay_queues_that_may_not_be_made_are_told() {
    let parked =
        |what: &str| format!("note {what}: messages wait for their next try in the local parking lot");
    assert_eq!(of_rights("", ".*", ".*", true), [parked("the user may make no queues")]);
    let found = of_rights("^dead$", ".*", ".*", true);
    assert_eq!(found, [parked("the user may not make queue `warren.delay.in.1200`")]);
}
