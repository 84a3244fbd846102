//! Secrets that come from files are read again before each login.

use std::path::Path;

use serde_json::json;
use warren_testkit::{pg, rabbit, scratch};

use super::served::SOON;
use super::served::{Served, publish};

/// Replaces a file as a secret store does: by rename, with a line break at its end.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{text}\n")).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[test]
fn a_password_that_was_changed_on_the_broker_and_in_its_file_is_used_and_sighup_ends_nothing() {
    let vhost = rabbit::vhost();
    vhost.queue("in");
    vhost.queue("out");
    vhost.queue("dead");
    let user = vhost.user(".*", ".*", ".*");
    let folder = scratch("secrets");
    let file = folder.path().join("password");
    replace(&file, &user.password);
    let at = user.url.split_once('@').unwrap().1;
    let url = format!("amqp://{}:${{file:{}}}@{at}", user.name, file.display());
    let served = Served::with(&format!("{{type: rabbitmq, url: \"{url}\"}}"), "");
    let serving = served.consume();
    serving.running.signal("HUP");
    publish(&vhost, ["good 1".to_owned()].into_iter());
    vhost.wait_for_depth("out", 1, SOON);

    // Deleting a user closes the connections. The new password is in no file yet.
    let management = vhost.management();
    let path = format!("/api/users/{}", user.name);
    management.request("DELETE", &path, &serde_json::Value::Null);
    management.request("PUT", &path, &json!({"password": "another", "tags": ""}));
    vhost.permit(&user.name, ".*", ".*", ".*");
    publish(&vhost, ["good 2".to_owned()].into_iter());
    warren_testkit::wait_until("the login is refused", SOON, || {
        serving.trigger()["waits_for"]["code"] == "broker-refused-login"
    });
    // Missing for a moment.
    std::fs::remove_file(&file).unwrap();
    serving.running.signal("HUP");
    replace(&file, "another");
    vhost.wait_for_depth("out", 2, SOON);
    serving.wait_for_state("consuming");
    assert_eq!(serving.get("/healthz").0, 200);
    assert_eq!(serving.stop().code, Some(0));
}

#[test]
fn a_password_that_was_changed_on_the_database_and_in_its_file_is_used() {
    let (vhost, database) = (rabbit::vhost(), pg::database());
    vhost.queue("in");
    vhost.queue("dead");
    database.sql("CREATE TABLE taken (body text NOT NULL)");
    let role = format!("{}_role", database.name());
    let admin = |statement: &str| pg::sql(&database.admin_url(), statement);
    admin(&format!("CREATE ROLE {role} LOGIN PASSWORD 'one'; GRANT INSERT ON taken TO {role}"));
    let folder = scratch("secrets");
    let file = folder.path().join("password");
    replace(&file, "one");
    let at = database.url();
    let at = at.split_once('@').unwrap().1;
    let pipeline = format!(
        "\nsources:\n  shop: {{type: postgres, url: \"postgres://{role}@{at}\", password: \"${{file:{}}}\"}}\npipelines:\n  work:\n    \
         - sql:\n        source: shop\n        statement: INSERT INTO taken (body) VALUES ($1)\n        params: '[.body]'\n",
        file.display()
    );
    let broker = format!("{{type: rabbitmq, url: \"{}\"}}", vhost.url());
    let served = Served::with_pipeline(&broker, "retry: {delays: [500ms]}", &pipeline);
    let serving = served.consume();
    let taken = || database.sql("SELECT count(*) FROM taken").trim().to_owned();
    publish(&vhost, ["1".to_owned()].into_iter());
    warren_testkit::wait_until("the first is taken", SOON, || taken() == "1");
    admin(&format!("ALTER ROLE {role} PASSWORD 'two'"));
    replace(&file, "two");
    database.disconnect();
    publish(&vhost, ["2".to_owned()].into_iter());
    warren_testkit::wait_until("the second is taken", SOON, || taken() == "2");
    assert_eq!(serving.stop().code, Some(0));
    admin(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
