//! The management API, checks and limits.

use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::finding::Severity;
use warren_engine::ports::Broker;
use warren_testkit::rabbit::vhost;

use super::{config, exchange, named, queue, rabbit};

#[tokio::test]
async fn queues_are_listed_over_several_pages() {
    let vhost = vhost();
    for at in 0..620 {
        vhost.queue(&format!("queue {at:03}"));
    }
    let config =
        Config { management_url: Some(Secret::new(vhost.management().url())), ..config(&vhost.url()) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    let queues = rabbit.queues().await.unwrap();
    let names: Vec<_> = queues.into_iter().map(|queue| queue.name).collect();
    let expected: Vec<_> = (0..620).map(|at| format!("queue {at:03}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn without_the_management_api_the_list_says_why() {
    let vhost = vhost();
    let unset = rabbit(&vhost.url()).queues().await.unwrap_err();
    assert_eq!(unset.code, codes::MANAGEMENT_FAILED);
    assert!(unset.remedy.as_deref().unwrap().contains("management_url"), "{unset:?}");

    let management = vhost.management().url().to_owned();
    let with = |url: String| {
        let config = Config { management_url: Some(Secret::new(url)), ..config(&vhost.url()) };
        Rabbit::new("rabbit", &config).unwrap()
    };
    let wrong_login = with(management.replace("guest:guest", "guest:swordfish")).queues().await.unwrap_err();
    assert_eq!((wrong_login.kind, wrong_login.code), (FailureKind::Refused, codes::MANAGEMENT_FAILED));
    assert!(!format!("{wrong_login:?}").contains("swordfish"), "{wrong_login:?}");
    let nobody = with("http://127.0.0.1:1".into()).queues().await.unwrap_err();
    assert_eq!((nobody.kind, nobody.code), (FailureKind::Disconnected, codes::MANAGEMENT_FAILED));
    let amqp_port = vhost.url().replace("amqp:", "http:");
    let not_it = with(amqp_port.rsplit_once('/').unwrap().0.to_owned()).queues().await.unwrap_err();
    assert_eq!(not_it.code, codes::MANAGEMENT_FAILED, "{not_it:?}");
}

#[tokio::test]
async fn a_check_says_what_a_user_may_not() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.exchange("x", "fanout");
    let user = vhost.user("", "", "");
    let config = Config { management_url: Some(Secret::new(vhost.management().url())), ..config(&user.url) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    let findings = rabbit.check(&[queue("q"), exchange("x", "")]).await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.severity == Severity::Error && finding.code == codes::ACCESS_REFUSED),
        "{findings:?}"
    );
    rabbit.close().await;
}

#[tokio::test]
async fn limits_follow_the_brokers_version() {
    let vhost = vhost();
    let rabbit = rabbit(&vhost.url());
    let limits = rabbit.limits().await.unwrap();
    let (product, version) = rabbit.server().await.unwrap();
    assert_eq!(product, "RabbitMQ");
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    assert_eq!(limits.body_bytes_max, if major >= 4 { 16 << 20 } else { 128 << 20 });
    assert_eq!((limits.header_bytes_max, limits.short_bytes_max), (Some(131_072 - 22), Some(255)));
    // The broker's own words, not the default, once it has said them: a publish of that size is tried elsewhere.
    drop(rabbit.publish(&[named(queue("nowhere"), "1")]).await);
    rabbit.close().await;
}
