//! Every server of `./test` answers, with and without TLS, and tests do not share.

use std::time::Duration;

use serde_json::json;
use warren_testkit::{mysql, pg, python, rabbit, sqs, wait_until};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn rabbitmq_carries_a_message_from_pika_to_pika() {
    let vhost = rabbit::vhost();
    vhost.queue("orders");
    let properties = json!({"message_id": "m1", "delivery_mode": 2, "headers": {"count": 7, "name": "é"}});
    python::publish(&vhost.url(), "", "orders", b"\x00\xff", &properties);

    let seen = python::drain(&vhost.url(), "orders");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, b"\x00\xff");
    assert_eq!(seen[0].routing_key, "orders");
    assert_eq!(seen[0].properties, json!({"message_id": "m1", "delivery_mode": 2}));
    let headers = json!({"count": {"type": "int", "value": 7}, "name": {"type": "str", "value": "é"}});
    assert_eq!(seen[0].headers, headers);
    assert_eq!(python::drain(&vhost.url(), "orders"), []);
}

#[test]
fn the_management_api_publishes_counts_takes_and_purges() {
    let vhost = rabbit::vhost();
    vhost.queue("a/b c");
    vhost.exchange("events", "topic");
    vhost.bind("events", "a/b c", "order.#");
    assert!(vhost.publish("events", "order.new", b"one", &json!({"message_id": "m1"})));
    assert!(vhost.publish("events", "order.new", b"\xff", &json!({})));
    assert!(!vhost.publish("events", "invoice.new", b"nobody wants it", &json!({})));
    vhost.wait_for_depth("a/b c", 2, SOON);

    let taken = vhost.take("a/b c", 1);
    assert_eq!(taken[0].body, b"one");
    assert_eq!(taken[0].properties["message_id"], "m1");
    assert_eq!(vhost.peek("a/b c", 9).len(), 1);
    let taken = vhost.peek("a/b c", 9);
    assert_eq!((taken[0].body.as_slice(), taken[0].redelivered), (b"\xff".as_slice(), true));
    vhost.purge("a/b c");
    assert_eq!(vhost.take("a/b c", 9), []);
    assert_eq!(vhost.look("never declared"), None);
}

#[test]
fn a_virtual_host_is_gone_with_its_value() {
    let management = rabbit::Management::new(&rabbit::management_url());
    let name = {
        let vhost = rabbit::vhost();
        assert_ne!(vhost.name(), rabbit::vhost().name());
        vhost.name().to_owned()
    };
    assert_eq!(management.get(&format!("/api/vhosts/{name}")), None);
}

#[test]
fn a_user_has_only_the_rights_it_was_given() {
    let vhost = rabbit::vhost();
    vhost.queue("open");
    let user = vhost.user("^$", "^amq\\.default$", "^open$");
    python::publish(&user.url, "", "open", b"x", &json!({}));
    assert_eq!(python::drain(&user.url, "open").len(), 1);

    vhost.queue("closed");
    let refused = std::panic::catch_unwind(|| python::drain(&user.url, "closed"));
    let message = *refused.expect_err("reading is not allowed").downcast::<String>().expect("a text");
    assert!(message.contains("ACCESS_REFUSED"), "{message}");
}

#[test]
fn a_full_queue_refuses_by_policy() {
    let vhost = rabbit::vhost();
    vhost.queue("small");
    vhost.policy("full", "^small$", &json!({"max-length": 1, "overflow": "reject-publish"}));
    wait_until("the policy holds", SOON, || {
        vhost.look("small").is_some_and(|queue| queue["policy"] == "full")
    });
    python::publish(&vhost.url(), "", "small", b"1", &json!({}));
    let refused = std::panic::catch_unwind(|| python::publish(&vhost.url(), "", "small", b"2", &json!({})));
    let message = *refused.expect_err("the queue is full").downcast::<String>().expect("a text");
    assert!(message.contains("NackError"), "{message}");
}

#[test]
fn postgresql_gives_a_database_to_each_test() {
    let (one, other) = (pg::database(), pg::database());
    one.sql("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    assert_eq!(one.sql("SELECT * FROM t ORDER BY a"), "1|x\n2|\n");
    assert_eq!(other.sql("SELECT count(*) FROM pg_tables WHERE tablename = 't'"), "0\n");
    assert_eq!(pg::sql(&one.admin_url(), "SELECT current_user"), "postgres\n");
    assert_eq!(one.sql("SELECT current_user"), "warren\n");
}

#[test]
fn postgresql_speaks_tls_to_users_who_must_and_with_certificates() {
    let database = pg::database();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(pg::sql(&database.tls_url(), encrypted), "t\n");
    let plain = database.tls_url().replace("sslmode=require", "sslmode=disable");
    let refused = std::panic::catch_unwind(|| pg::sql(&plain, "SELECT 1"));
    let message = *refused.expect_err("TLS is demanded").downcast::<String>().expect("a text");
    assert!(message.contains("no encryption"), "{message}");

    let with_certificate = format!(
        "{}&sslcert={}&sslkey={}&sslrootcert={}",
        pg::cert_url().replace("sslmode=require", "sslmode=verify-full"),
        warren_testkit::tls::client_certificate().display(),
        warren_testkit::tls::client_key().display(),
        warren_testkit::tls::ca().display(),
    );
    assert_eq!(pg::sql(&with_certificate, "SELECT current_user"), "warren_cert\n");
    let stranger = with_certificate.replace("/ca.pem", "/stranger-ca.pem");
    let refused = std::panic::catch_unwind(|| pg::sql(&stranger, "SELECT 1"));
    let message = *refused.expect_err("the authority is a stranger").downcast::<String>().expect("a text");
    assert!(message.contains("certificate verify failed"), "{message}");
}

#[test]
fn mariadb_gives_a_database_to_each_test() {
    let (one, other) = (mysql::database(), mysql::database());
    one.sql("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, '🐇'), (2, NULL)");
    assert_eq!(one.sql("SELECT * FROM t ORDER BY a"), "1\t🐇\n2\tNULL\n");
    assert_eq!(other.sql("SHOW TABLES"), "");
    assert_eq!(one.sql("SELECT current_user()"), "warren@127.0.0.1\n");
    let cipher = mysql::sql(&one.tls_url(), "SHOW STATUS LIKE 'Ssl_cipher'");
    assert!(cipher.contains("TLS_"), "{cipher}");
}

#[test]
fn sqs_carries_a_message_to_boto3_and_accounts_share_nothing() {
    let (one, other) = (sqs::account(), sqs::account());
    assert_ne!(one.id(), other.id());
    let url = one.queue("orders.fifo", &[("ContentBasedDeduplication", "true")]);
    other.queue("orders.fifo", &[]);
    one.ask("SendMessage", &json!({"QueueUrl": url, "MessageBody": "é", "MessageGroupId": "g"}));
    assert_eq!((one.depth("orders.fifo"), other.depth("orders.fifo")), (1, 0));
    let seen = one.drain("orders.fifo", 1, SOON);
    assert_eq!((&seen[0]["Body"], &seen[0]["Attributes"]["MessageGroupId"]), (&json!("é"), &json!("g")));
    assert_eq!(one.depth("orders.fifo"), 0);
}
