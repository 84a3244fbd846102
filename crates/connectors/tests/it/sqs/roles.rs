//! Who we are: keys, roles, and what happens without either.

use warren_connectors::sqs::Config;
use warren_connectors::sqs::config::AssumeRole;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Broker as _;
use warren_testkit::sqs::{Endpoint, account};

use super::{SOON, all_accepted, at, key, of, outbound, sqs};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_another_account_is_taken_on() {
    let account = account();
    account.queue("theirs", &[]);
    let role = AssumeRole {
        role_arn: account.role_arn(),
        external_id: Some("warren-7f3a".into()),
        ..AssumeRole::default()
    };
    // Our own key is that of another account, in which there is no such queue.
    let mine = key("AKIAIOSFODNN7EXAMPLE", "secret", None);
    let config = Config { access_key: Some(mine), assume_role: Some(role), ..of(&account) };
    let broker = sqs(&config);
    all_accepted(
        &broker.publish(&[outbound("theirs", "x"), outbound(&account.queue_arn("theirs"), "y")]).await,
    );
    assert_eq!(account.drain("theirs", 2, SOON).len(), 2);
    let without = sqs(&Config { assume_role: None, ..config });
    assert_eq!(super::codes(&without.publish(&[outbound("theirs", "x")]).await), ["no-such-queue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_refused_ends_before_anything_is_sent() {
    let endpoint = Endpoint::start().await; // it knows nothing of roles
    let role = AssumeRole { role_arn: "arn:aws:iam::123456789012:role/x".into(), ..AssumeRole::default() };
    let broker = sqs(&Config { assume_role: Some(role), ..at(&endpoint) });
    let failure = broker.limits().await.expect_err("there are no credentials");
    assert_eq!(
        (failure.kind, failure.code.as_str()),
        (FailureKind::Refused, "broker-refused-login"),
        "{failure:?}"
    );
    assert!(failure.remedy.as_deref().is_some_and(|remedy| remedy.contains("external_id")), "{failure:?}");
}
