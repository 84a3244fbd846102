//! Exchanges, lists and checks.

use warren_engine::codes;
use warren_engine::finding::Severity;
use warren_engine::message::{HeaderValue, Receipt};

use super::{Fixture, drain, exchange, fill, headers, outbound, queue, text};

pub(super) async fn exchanges_route_by_their_kind(fixture: &dyn Fixture) {
    for name in ["a", "b"] {
        fixture.queue(name, headers(&[])).await;
    }
    for (name, kind) in [("d", "direct"), ("f", "fanout"), ("t", "topic"), ("h", "headers")] {
        fixture.exchange(name, kind).await;
    }
    fixture.bind("d", "a", "one", headers(&[])).await;
    fixture.bind("f", "a", "", headers(&[])).await;
    fixture.bind("f", "b", "", headers(&[])).await;
    fixture.bind("t", "a", "*.eu.#", headers(&[])).await;
    fixture.bind("t", "b", "#", headers(&[])).await;
    fixture
        .bind(
            "h",
            "a",
            "",
            headers(&[("x-match", text("all")), ("k", text("v")), ("n", HeaderValue::I64(1))]),
        )
        .await;
    fixture
        .bind(
            "h",
            "b",
            "",
            headers(&[("x-match", text("any")), ("k", text("v")), ("n", HeaderValue::I64(1))]),
        )
        .await;
    let mut both = outbound(exchange("h", ""), "h both");
    both.message.properties.headers = headers(&[("k", text("v")), ("n", HeaderValue::I64(1))]);
    let mut one = outbound(exchange("h", ""), "h one");
    one.message.properties.headers = headers(&[("k", text("v"))]);
    let batch = [
        outbound(exchange("d", "one"), "d one"),
        outbound(exchange("d", "two"), "d two"),
        outbound(exchange("f", "whatever"), "f"),
        outbound(exchange("t", "shop.eu"), "t eu"),
        outbound(exchange("t", "shop.eu.pt.lx"), "t eu pt"),
        outbound(exchange("t", "eu"), "t short"),
        both,
        one,
        outbound(exchange("h", ""), "h none"),
    ];
    let receipts = fixture.broker().publish(&batch).await;
    let accepted: Vec<bool> =
        receipts.iter().map(|receipt| matches!(receipt, Receipt::Accepted(_))).collect();
    assert_eq!(accepted, [true, false, true, true, true, true, true, true, false], "{receipts:?}");
    assert_eq!(drain(fixture, "a").await, ["d one", "f", "t eu", "t eu pt", "h both"]);
    assert_eq!(drain(fixture, "b").await, ["f", "t eu", "t eu pt", "t short", "h both", "h one"]);
}

pub(super) async fn queues_are_listed(fixture: &dyn Fixture) {
    for name in ["b / percent %2F", "a", "ünï"] {
        fixture.queue(name, headers(&[])).await;
    }
    fill(fixture, "a", (0..3).map(|at| at.to_string())).await;
    let queues = fixture.broker().queues().await.expect("the broker lists its queues");
    let names: Vec<&str> = queues.iter().map(|queue| &*queue.name).collect();
    assert_eq!(names, ["a", "b / percent %2F", "ünï"]);
    assert!(queues.iter().all(|queue| queue.durable && queue.kind == "classic"), "{queues:?}");
}

pub(super) async fn a_check_finds_what_is_missing(fixture: &dyn Fixture) {
    fixture.queue("here", headers(&[])).await;
    fixture.exchange("there", "topic").await;
    let broker = fixture.broker();
    let fine = broker.check(&[queue("here"), exchange("there", "any")]).await;
    assert!(fine.iter().all(|finding| finding.severity != Severity::Error), "{fine:?}");
    let found = broker.check(&[queue("here"), queue("nowhere"), exchange("missing", "k")]).await;
    let errors: Vec<_> = found.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_eq!(
        errors.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        [codes::NO_SUCH_QUEUE, codes::NO_SUCH_EXCHANGE],
        "{found:?}"
    );
    assert!(errors[0].subject.contains("nowhere") && errors[1].subject.contains("missing"), "{errors:?}");
    assert!(errors.iter().all(|finding| finding.remedy.is_some()), "{errors:?}");
    // It changed nothing.
    let again = broker.check(&[queue("nowhere")]).await;
    assert_eq!(again.iter().filter(|finding| finding.severity == Severity::Error).count(), 1);
}
