//! Who logs in, and what they may, as the broker says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, users};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::hub::ports::{Right, Users};
use warren_engine::hub::resource::Resource;
use warren_engine::pipeline::outside::Hidden;
use warren_testkit::rabbit::{Vhost, vhost};

use super::config;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn of(vhost: &Vhost) -> Arc<dyn Users> {
    let config =
        Config { management_url: Some(Secret::new(vhost.management().url())), ..config(&vhost.url()) };
    users("rabbit", &config).unwrap()
}

fn hidden(text: &str) -> Hidden {
    Hidden(text.to_owned())
}

#[tokio::test]
async fn the_brokers_users_log_in_and_may_what_it_lets_them() {
    let vhost = vhost();
    let user = vhost.user("^mine-", "^(orders|amq\\.default)$", "");
    let users = of(&vhost);
    let found = users.login(HERE, &user.name, &hidden(&user.password)).await.unwrap().unwrap();
    assert_eq!((&found.name, &found.tags), (&user.name, &vec!["management".to_owned()]));
    for (name, password) in
        [(user.name.as_str(), "wrong"), (&user.name, ""), ("nobody at all", "wrong"), ("", "")]
    {
        assert_eq!(users.login(HERE, name, &hidden(password)).await.unwrap(), None, "{name}");
    }
    let here = vhost.name();
    for (right, resource, wanted) in [
        (Right::Configure, Resource::queue(here, "mine-1"), true),
        (Right::Configure, Resource::queue(here, "yours"), false),
        (Right::Write, Resource::exchange(here, "orders"), true),
        (Right::Write, Resource::exchange(here, ""), true),
        (Right::Write, Resource::exchange(here, "orders2"), false),
        (Right::Read, Resource::queue(here, "mine-1"), false),
        (Right::Write, Resource::queue("/", "orders"), false),
        (Right::Write, Resource::queue("no such vhost", "orders"), false),
    ] {
        assert_eq!(users.may(&found, right, &resource).await.unwrap(), wanted, "{right:?} {resource}");
    }
    let guest = users.named("guest").await.unwrap().unwrap();
    assert!(guest.has_tags(&["administrator"]));
    assert_eq!(users.named("nobody at all").await.unwrap(), None);
}

#[tokio::test]
async fn a_user_who_may_enter_no_vhost_logs_in_all_the_same() {
    let vhost = vhost();
    let name = format!("{}-outside", vhost.name());
    let path = format!("/api/users/{name}");
    vhost.management().request(
        "PUT",
        &path,
        &json!({"password": "swordfish", "tags": "monitoring,rabbithub_admin"}),
    );
    let users = of(&vhost);
    let found = users.login(HERE, &name, &hidden("swordfish")).await.unwrap().unwrap();
    assert!(found.has_tags(&["monitoring", "rabbithub_admin"]));
    assert!(!users.may(&found, Right::Read, &Resource::queue(vhost.name(), "q")).await.unwrap());
    assert_eq!(users.login(HERE, &name, &hidden("sword\0fish")).await.unwrap(), None);
    vhost.management().request("DELETE", &path, &Value::Null);
}

#[tokio::test]
async fn topic_permissions_limit_keys() {
    let vhost = vhost();
    vhost.exchange("events", "topic");
    let user = vhost.user(".*", ".*", ".*");
    let path = format!("/api/topic-permissions/{}/{}", vhost.name(), user.name);
    let body = json!({"exchange": "events", "write": "^{username}\\.", "read": ""});
    vhost.management().request("PUT", &path, &body);
    let users = of(&vhost);
    let found = users.login(HERE, &user.name, &hidden(&user.password)).await.unwrap().unwrap();
    let events = Resource::exchange(vhost.name(), "events");
    for (right, exchange, key, wanted) in [
        (Right::Write, &events, format!("{}.made", user.name), true),
        (Right::Write, &events, "other.made".to_owned(), false),
        (Right::Read, &events, "other.made".to_owned(), false),
        (Right::Write, &Resource::exchange(vhost.name(), "free"), "other.made".to_owned(), true),
        (Right::Write, &Resource::exchange(vhost.name(), ""), "q".to_owned(), true),
    ] {
        assert_eq!(users.may_key(&found, right, exchange, &key).await.unwrap(), wanted, "{exchange} {key}");
    }
}

#[tokio::test]
async fn a_permission_that_cannot_be_matched_is_told_and_grants_nothing() {
    let vhost = vhost();
    let user = vhost.user(".*", "^(?!secret)", ".*");
    let users = of(&vhost);
    let found = users.login(HERE, &user.name, &hidden(&user.password)).await.unwrap().unwrap();
    let failure = users.may(&found, Right::Write, &Resource::queue(vhost.name(), "q")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Refused, codes::ACCESS_REFUSED));
    assert!(failure.to_string().contains("(?!secret)"), "{failure}");
}

#[tokio::test]
async fn without_a_broker_or_its_management_api_nobody_can_tell() {
    let vhost = vhost();
    let failure = users("rabbit", &config(&vhost.url())).err().unwrap();
    assert_eq!(failure.code, codes::MISSING_KEY);
    assert!(failure.remedy.unwrap().contains("management_url"));
    let nowhere = Config {
        url: Some(Secret::new("amqp://127.0.0.1:1")),
        management_url: Some(Secret::new("http://127.0.0.1:1")),
        ..Config::default()
    };
    let users = users("rabbit", &nowhere).unwrap();
    let failure = users.login(HERE, "guest", &hidden("swordfish")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Disconnected);
    assert!(!format!("{failure:?}").contains("swordfish"));
}
