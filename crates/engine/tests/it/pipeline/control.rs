//! Ways, rounds, tries, and what is done about errors.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use warren_engine::memory::Reply;
use warren_engine::pipeline::End;
use warren_engine::pipeline::plan::{Branch, FailStep, ForEachStep, PipelinePlan, RetryStep, Step, StepKind};

use super::build::{SECONDS, answer, http, jq, map, named, post, run, step, text};

const URL: &str = "https://stock.example/reserve";

fn fail(reason: &str, end: End) -> Step {
    step(StepKind::Fail(FailStep { reason: text(reason), end }))
}

fn call() -> Step {
    step(http(post(URL)))
}

fn status(status: u16) -> (Value, Reply) {
    (json!({"http": {}}), answer(status, &[], ""))
}

#[tokio::test]
async fn the_first_way_that_fits_is_gone() {
    let choose = || {
        step(StepKind::Choose(vec![
            Branch {
                when: Some(jq(".body == \"a\"")),
                steps: vec![map("1"), named("inner", StepKind::Map(jq(". + 10")))],
            },
            Branch { when: Some(jq(".body == \"b\"")), steps: vec![map("2")] },
            Branch { when: None, steps: vec![] },
        ]))
    };
    let ended = run(vec![choose(), map("[., $steps.inner]")], "a", vec![]).await;
    assert_eq!(ended.value(), json!([11, 11]));
    assert_eq!(ended.paths(), ["1.choose[1].1.map", "1.choose[1].2.map", "1.choose", "2.map"]);
    assert_eq!(run(vec![choose()], "b", vec![]).await.value(), 2);
    assert_eq!(run(vec![choose(), map(".body")], "c", vec![]).await.value(), "c");
}

#[tokio::test(start_paused = true)]
async fn each_item_is_worked_on_in_its_own_scope_and_the_order_stays() {
    let each = |concurrency, steps| {
        step(StepKind::ForEach(ForEachStep { items: jq("[1, 2, 3]"), concurrency, steps }))
    };
    let steps = vec![step(StepKind::Filter(jq(". != 2"))), map(". * 10")];
    let ended = run(vec![each(2, steps)], "b", vec![]).await;
    assert_eq!(ended.value(), json!([10, 30]));
    assert!(ended.paths().contains(&"1.for_each[3].2.map"));
    // Two at once: the third call is made when one of the first two has ended.
    let silent = || (json!({"http": {}}), Reply::Silence);
    let began = Instant::now();
    let mut calls = vec![silent(), silent()];
    calls.push(status(200));
    let slow = Step { on_error: Some(vec![map("0")]), ..call() };
    let ended = run(vec![each(2, vec![slow, map("if . == 0 then 0 else .status end")])], "b", calls).await;
    assert_eq!(ended.value(), json!([0, 0, 200]));
    assert_eq!(began.elapsed(), 30 * SECONDS);
}

#[tokio::test(start_paused = true)]
async fn one_item_that_fails_ends_the_others() {
    let each = ForEachStep { items: jq("[1, 2]"), concurrency: 2, steps: vec![call()] };
    let calls = vec![(json!({"http": {}}), Reply::Silence), status(422)];
    let began = Instant::now();
    let ended = run(vec![step(StepKind::ForEach(each))], "b", calls).await;
    assert!(ended.said().starts_with("reject http-status"), "{}", ended.said());
    assert_eq!((began.elapsed(), ended.script.under_way()), (Duration::ZERO, 0));
    let not_items = ForEachStep { items: jq(".body"), concurrency: 1, steps: vec![] };
    assert!(
        run(vec![step(StepKind::ForEach(not_items))], "b", vec![])
            .await
            .said()
            .contains("an array is wanted")
    );
}

#[tokio::test(start_paused = true)]
async fn a_local_retry_waits_and_tries_again() {
    let retry = |when: Option<&str>| {
        let delays = vec![SECONDS, 5 * SECONDS];
        step(StepKind::Retry(RetryStep { delays, when: when.map(jq), steps: vec![call()] }))
    };
    let began = Instant::now();
    let ended = run(vec![retry(None)], "b", vec![status(503), status(500), status(200)]).await;
    assert_eq!((ended.value()["status"].clone(), began.elapsed()), (json!(200), 6 * SECONDS));
    assert_eq!(ended.paths(), ["1.retry[1].1.http", "1.retry[2].1.http", "1.retry[3].1.http", "1.retry"]);
    // No more delays; what is rejected is not tried again, unless it is asked for.
    assert!(
        run(vec![retry(None)], "b", vec![status(503), status(503), status(503)])
            .await
            .said()
            .starts_with("retry")
    );
    assert!(run(vec![retry(None)], "b", vec![status(404)]).await.said().starts_with("reject"));
    let asked = retry(Some(".message | contains(\"404\")"));
    assert_eq!(run(vec![asked], "b", vec![status(404), status(200)]).await.said(), "ok");
    let never = retry(Some(".code == \"step-timeout\""));
    assert!(run(vec![never], "b", vec![status(503)]).await.said().starts_with("retry"));
    // One that asks for a longer pause than there is.
    let long = (json!({"http": {}}), answer(503, &[("retry-after", "60")], ""));
    let began = Instant::now();
    assert!(run(vec![retry(None)], "b", vec![long]).await.said().starts_with("retry"));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn an_error_goes_to_the_next_on_error_of_its_list() {
    let on_error = step(StepKind::OnError(vec![map("{caught: .}")]));
    let steps = vec![
        map(".body"),
        named("call", http(post(URL))),
        map("\"not reached\""),
        on_error.clone(),
        map("[.]"),
    ];
    let ended = run(steps, "b", vec![status(404)]).await;
    let value = ended.value();
    let caught = &value[0]["caught"];
    assert_eq!(caught["error"], "not_found");
    assert_eq!(caught["step"], "call");
    assert_eq!(caught["code"], "http-status");
    assert_eq!(caught["message"], "POST https://stock.example/reserve: the answer was 404");
    assert_eq!(caught["message_in"], "b");
    assert_eq!(caught["status"], 404);
    assert_eq!(caught.as_object().unwrap().len(), 6);
    assert_eq!(ended.paths(), ["1.map", "2.http", "4.on_error.1.map", "5.map"]);
    // Without an error it is passed over.
    let steps = vec![map(".body"), on_error, map("[.]")];
    assert_eq!(run(steps, "b", vec![]).await.value(), json!(["b"]));
}

#[tokio::test]
async fn an_error_goes_first_to_the_steps_own_on_error() {
    let own = |handlers| Step { on_error: Some(handlers), ..named("call", http(post(URL))) };
    let ended = run(vec![own(vec![map(".code")]), map("[., $steps.call]")], "b", vec![status(500)]).await;
    assert_eq!(ended.value(), json!(["http-status", "http-status"]));
    assert_eq!(ended.paths(), ["1.http", "1.http.on_error.1.map", "2.map"]);
    // Its error goes on.
    let steps =
        vec![own(vec![fail("given up", End::Reject)]), step(StepKind::OnError(vec![map(".message")]))];
    assert_eq!(run(steps, "b", vec![status(500)]).await.value(), "given up");
    let steps = vec![own(vec![fail("given up", End::Reject)])];
    let said = run(steps, "b", vec![status(500)]).await.said();
    assert_eq!(said, "reject failed-on-purpose: given up (step 1.http.on_error.1.fail)");
}

#[tokio::test]
async fn timeouts_add_up() {
    let choose = StepKind::Choose(vec![
        Branch { when: Some(jq("true")), steps: vec![call()] },
        Branch { when: None, steps: vec![call(), call()] },
    ]);
    let retry = RetryStep { delays: vec![SECONDS, 2 * SECONDS], when: None, steps: vec![call()] };
    let each = ForEachStep { items: jq("."), concurrency: 1, steps: vec![call()] };
    let handled = Step { on_error: Some(vec![call()]), ..map(".") };
    for (steps, seconds) in [
        (vec![map(".")], 0),
        (vec![call(), call()], 60),
        (vec![step(choose)], 60),
        (vec![step(StepKind::Retry(retry))], 93),
        (vec![step(StepKind::ForEach(each))], 30),
        (vec![handled], 30),
        (vec![step(StepKind::OnError(vec![call()]))], 30),
    ] {
        assert_eq!(PipelinePlan { steps }.timeout_sum(), Duration::from_secs(seconds));
    }
}
