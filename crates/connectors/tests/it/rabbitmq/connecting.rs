//! Getting in: login, vhost, TLS, and what a person reads when that fails.

use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::tls::TlsSettings;
use warren_connectors::rabbitmq::config::Protocol;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::Receipt;
use warren_engine::ports::Broker;
use warren_testkit::{rabbit::vhost, tls};

use super::{assert_accepted, config, exchange, named, queue, rabbit};

async fn refused(config: &Config) -> Failure {
    let rabbit = Rabbit::new("rabbit", config).unwrap();
    let failure = rabbit.limits().await.expect_err("it does not get in");
    assert!(failure.remedy.is_some() && failure.detail.is_some(), "{failure:?}");
    assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
    // A row is not rejected because of it, and says the same.
    let receipts = rabbit.publish(&[named(queue("q"), "1")]).await;
    let [Receipt::Refused(of_message)] = &receipts[..] else { panic!("{receipts:?}") };
    assert_eq!((of_message.kind, of_message.code), (FailureKind::Disconnected, failure.code));
    failure
}

fn is(failure: &Failure, kind: FailureKind, code: Code) {
    assert_eq!((failure.kind, failure.code), (kind, code), "{failure:?}");
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let vhost = vhost();
    let url = vhost.url().replace("guest:guest@", "guest:swordfish@");
    let failure = refused(&config(&url)).await;
    is(&failure, FailureKind::Refused, codes::BROKER_REFUSED_LOGIN);
    assert!(failure.detail.as_deref().unwrap().contains("ACCESS_REFUSED"), "{failure:?}");
}

#[tokio::test]
async fn an_unknown_vhost_is_told() {
    let url = warren_testkit::rabbit::url().replace("%2f", "no%2Fsuch");
    let failure = refused(&config(&url)).await;
    is(&failure, FailureKind::NotFound, codes::UNKNOWN_VHOST);
    assert!(failure.remedy.as_deref().unwrap().contains("no/such"), "{failure:?}");
}

#[tokio::test]
async fn a_vhost_without_rights_is_told() {
    let (mine, other) = (vhost(), vhost());
    let user = mine.user(".*", ".*", ".*");
    let failure = refused(&config(&user.url.replace(mine.name(), other.name()))).await;
    is(&failure, FailureKind::Refused, codes::UNKNOWN_VHOST);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let failure = refused(&config(&format!("amqp://guest:swordfish@127.0.0.1:{port}"))).await;
    is(&failure, FailureKind::Disconnected, codes::BROKER_UNREACHABLE);
    let named = config("amqp://guest:swordfish@no-such-host.invalid");
    is(&refused(&named).await, FailureKind::Disconnected, codes::BROKER_UNREACHABLE);
}

#[tokio::test]
async fn tls_with_an_own_authority_works_and_a_strange_one_is_refused() {
    let vhost = vhost();
    vhost.queue("q");
    let with_ca = |ca: std::path::PathBuf| Config {
        tls: Some(TlsSettings { ca: Some(ca.to_str().unwrap().to_owned()), ..TlsSettings::default() }),
        ..config(&vhost.tls_url())
    };
    let rabbit = Rabbit::new("rabbit", &with_ca(tls::ca())).unwrap();
    let batch: Vec<_> = (0..500).map(|at| named(queue("q"), &at.to_string())).collect();
    assert_accepted(&rabbit.publish(&batch).await);
    let mut large = named(queue("q"), "large");
    large.message.body = vec![7; 3_000_000].into();
    assert_accepted(&rabbit.publish(std::slice::from_ref(&large)).await);
    for outbound in batch.iter().chain([&large]) {
        assert!(rabbit.take_one("q").await.unwrap().unwrap().message == outbound.message);
    }
    rabbit.close().await;
    is(&refused(&with_ca(tls::stranger_ca())).await, FailureKind::Refused, codes::TLS_FAILED);
    // Signed by the right authority, and for another name.
    let mut other_name = with_ca(tls::ca());
    other_name.tls.as_mut().unwrap().server_name = Some("elsewhere.example".into());
    is(&refused(&other_name).await, FailureKind::Refused, codes::TLS_FAILED);
    // TLS towards a port in the clear, and the other way round.
    let plain_port = vhost.url().rsplit_once(':').unwrap().1.to_owned();
    let crossed = Config {
        url: Some(Secret::new(format!("amqps://guest:guest@127.0.0.1:{plain_port}"))),
        ..with_ca(tls::ca())
    };
    is(&refused(&crossed).await, FailureKind::Refused, codes::TLS_FAILED);
    let in_the_clear = config(&vhost.tls_url().replace("amqps", "amqp"));
    let failure = refused(&in_the_clear).await;
    is(&failure, FailureKind::Disconnected, codes::PROTOCOL_ERROR);
    assert!(failure.remedy.as_deref().unwrap().contains("TLS"), "{failure:?}");
}

#[tokio::test]
async fn a_client_certificate_alone_asks_for_the_mechanism_external() {
    let vhost = vhost();
    let (host, port) = {
        let url = vhost.tls_url();
        let place = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let (host, port) = place.split_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    };
    let config = Config {
        protocol: Some(Protocol::Amqps),
        host: Some(host),
        port: Some(port),
        vhost: Some(vhost.name().to_owned()),
        tls: Some(TlsSettings {
            ca: Some(tls::ca().to_str().unwrap().to_owned()),
            cert: Some(tls::client_certificate().to_str().unwrap().to_owned()),
            key: Some(Secret::new(tls::client_key().to_str().unwrap())),
            server_name: None,
        }),
        ..Config::default()
    };
    // The plugin is not enabled there, and the failure says so.
    let failure = refused(&config).await;
    is(&failure, FailureKind::Refused, codes::BROKER_REFUSED_LOGIN);
    assert!(failure.remedy.as_deref().unwrap().contains("rabbitmq_auth_mechanism_ssl"), "{failure:?}");
    // With a user's login the certificate goes along.
    let both = Config { username: Some("guest".into()), password: Some(Secret::new("guest")), ..config };
    let rabbit = Rabbit::new("rabbit", &both).unwrap();
    rabbit.limits().await.unwrap();
    rabbit.close().await;
}

#[tokio::test]
async fn a_connection_closed_by_an_operator_is_opened_again() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    assert_accepted(&rabbit.publish(&[named(queue("q"), "1")]).await);
    vhost.wait_for_connections(1, super::SOON);
    assert_eq!(vhost.close_connections(), 1);
    vhost.wait_for_connections(0, super::SOON);
    // The connection's end may be noticed by the message that uses it: it is told as not sent or unknown, never as sent.
    let mut receipts = rabbit.publish(&[named(queue("q"), "2")]).await;
    if !matches!(receipts[0], Receipt::Accepted(_)) {
        receipts = rabbit.publish(&[named(queue("q"), "2")]).await;
    }
    assert_accepted(&receipts);
    rabbit.close().await;
}

#[tokio::test]
async fn closing_ends_all_connections_and_later_calls_say_so() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    assert_accepted(&rabbit.publish(&[named(queue("q"), "1")]).await);
    let mut consumer = rabbit.consume("q", 1).await.unwrap();
    vhost.wait_for_connections(2, super::SOON);
    rabbit.close().await;
    vhost.wait_for_connections(0, super::SOON);
    assert!(consumer.next().await.is_err());
    let receipts = rabbit.publish(&[named(exchange("", "q"), "2")]).await;
    assert!(matches!(&receipts[0], Receipt::Refused(failure) if failure.kind == FailureKind::Disconnected));
}
