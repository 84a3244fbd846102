//! Each step, and what its errors end in.

use std::time::Duration;

use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::memory::Reply;
use warren_engine::outcome::Outcome;
use warren_engine::pipeline::End;
use warren_engine::pipeline::outside::{CommandEnd, SqlAnswer};
use warren_engine::pipeline::plan::{
    ExecStep, FailStep, Given, LogLevel, LogStep, Pairs, Params, PublishRoute, PublishStep, ReplyStep,
    SqlStep, StepKind,
};
use warren_engine::pipeline::schema::Schema;
use warren_engine::statuses::Statuses;

use super::build::{SECONDS, answer, body, http, job, jq, map, named, post, run, run_job, step, text};

const URL: &str = "https://stock.example/reserve";

fn publish(route: PublishRoute) -> PublishStep {
    PublishStep {
        to: "rabbit".into(),
        route,
        body: body("."),
        properties: Pairs::Named(Vec::new()),
        headers: Pairs::Named(Vec::new()),
        timeout: 30 * SECONDS,
    }
}

fn exec() -> ExecStep {
    ExecStep {
        command: "check".into(),
        args: vec![text("--id"), text("{{ value.id }}")],
        environment: Vec::new(),
        stdin: jq("."),
        timeout: 30 * SECONDS,
        output_bytes_max: 1 << 20,
    }
}

fn sql() -> SqlStep {
    SqlStep {
        source: "shop".into(),
        statement: "UPDATE stock SET n = n - $1 WHERE sku = $2".into(),
        params: Params::Listed(vec![jq(".n"), jq(".sku")]),
        each: None,
        timeout: 30 * SECONDS,
        rows_max: 100,
    }
}

#[tokio::test]
async fn values_go_from_step_to_step_and_stay_reachable() {
    let steps = vec![
        named("order", StepKind::Map(jq(".body | fromjson"))),
        map(".quantity"),
        map("{n: ., sku: $steps.order.sku, queue: $message.envelope.queue}"),
    ];
    let ended = run(steps, r#"{"sku": "a", "quantity": 2}"#, vec![]).await;
    assert_eq!(ended.value(), json!({"n": 2, "sku": "a", "queue": "orders"}));
    assert_eq!(ended.paths(), ["1.map", "2.map", "3.map"]);
    assert_eq!(ended.trace[0].id.as_deref(), Some("order"));
}

#[tokio::test]
async fn an_expression_that_fails_over_the_message_rejects_it() {
    let ended = run(vec![map(".body | fromjson")], "no json", vec![]).await;
    assert!(
        ended.said().starts_with(
            "reject expression-failed: evaluate `.body | fromjson` (step 1.map): no json cannot be parsed"
        ),
        "{}",
        ended.said()
    );
    assert_eq!(ended.trace[0].failure.as_ref().unwrap().code, codes::EXPRESSION_FAILED);
}

#[tokio::test]
async fn a_filter_ends_the_run_as_ok() {
    for (filter, wanted) in [
        (".body == \"b\"", "ok"),
        ("false", "filtered"),
        ("null", "filtered"),
        ("empty", "filtered"),
        ("0", "ok"),
    ] {
        let ended = run(vec![step(StepKind::Filter(jq(filter))), map("1")], "b", vec![]).await;
        assert_eq!(ended.said(), wanted, "{filter}");
        assert_eq!(ended.trace[0].note.as_deref() == Some("filtered"), wanted == "filtered");
    }
}

#[tokio::test]
async fn what_is_not_valid_is_rejected_with_its_path() {
    let schema = Schema::compile(json!({"properties": {"n": {"type": "integer"}}})).unwrap();
    let steps = || vec![map(".body | fromjson"), step(StepKind::Validate(schema.clone()))];
    assert_eq!(run(steps(), r#"{"n": 1}"#, vec![]).await.value(), json!({"n": 1}));
    let said = run(steps(), r#"{"n": "x"}"#, vec![]).await.said();
    assert!(said.starts_with("reject not-valid: /n is not valid (step 2.validate): "), "{said}");
}

#[tokio::test]
async fn an_answer_becomes_the_value() {
    let mut call = post("https://stock.example/reserve/{{ value.id }}");
    call.headers = vec![("X-Id".into(), text("{{ value.id }}"))];
    let reply =
        answer(201, &[("content-type", "application/json"), ("x", "1"), ("x", "2")], r#"{"left": 3}"#);
    let expected = json!({"http": {"method": "POST", "url": "https://stock.example/reserve/7", "body": {"id": 7},
        "headers": {"x-id": "7", "content-type": "application/json"}}});
    let ended =
        run(vec![map(".body | fromjson"), step(http(call))], r#"{"id": 7}"#, vec![(expected, reply)]).await;
    let wanted = json!({"status": 201, "headers": {"content-type": "application/json", "x": "1, 2"}, "body": {"left": 3}});
    assert_eq!(ended.value(), wanted);
    assert_eq!(ended.trace[1].note.as_deref(), Some("POST https://stock.example/reserve/7: 201"));
}

#[tokio::test]
async fn statuses_end_in_what_the_contract_says() {
    for (status, wanted) in [
        (200, "ok"),
        (204, "ok"),
        (299, "ok"),
        (301, "reject"),
        (302, "reject"),
        (304, "reject"),
        (307, "reject"),
        (400, "reject"),
        (401, "reject"),
        (404, "reject"),
        (409, "reject"),
        (410, "reject"),
        (422, "reject"),
        (408, "retry"),
        (425, "retry"),
        (429, "retry"),
        (500, "retry"),
        (502, "retry"),
        (503, "retry"),
        (599, "retry"),
    ] {
        let headers = [("retry-after", "120")];
        let reply = answer(status, &headers, "out of stock");
        let ended = run(vec![step(http(post(URL)))], "b", vec![(json!({"http": {}}), reply)]).await;
        assert_eq!(ended.said().split(' ').next().unwrap(), wanted, "{status}");
        if let Outcome::Retry(failure) | Outcome::Reject(failure) = &ended.run.outcome {
            assert_eq!(failure.code, codes::HTTP_STATUS);
            assert!(failure.detail.as_ref().unwrap().contains("out of stock"));
            let pause = (wanted == "retry").then_some(120 * SECONDS);
            assert_eq!(failure.retry_after, pause, "{status}");
        }
    }
    let mut call = post(URL);
    call.expect = Statuses::read(&["2xx", "404"]).unwrap();
    let ended = run(vec![step(http(call))], "b", vec![(json!({"http": {}}), answer(404, &[], ""))]).await;
    assert_eq!(ended.value()["status"], 404);
}

#[tokio::test]
async fn final_statuses_alone_reject() {
    for (last, rejected) in [
        (&["400", "410"][..], &[400, 410][..]),
        (&["4xx"], &[400, 401, 404, 408, 410, 425, 429]),
        (&["301", "5xx"], &[301, 500, 503]),
        (&[], &[]),
    ] {
        for status in [301, 302, 400, 401, 404, 408, 410, 425, 429, 500, 503] {
            let mut call = post(URL);
            call.final_statuses = Statuses::read(last).unwrap();
            let reply = answer(status, &[("retry-after", "7")], "");
            let ended = run(vec![step(http(call))], "b", vec![(json!({"http": {}}), reply)]).await;
            match &ended.run.outcome {
                Outcome::Reject(_) => assert!(rejected.contains(&status), "{last:?} {status}"),
                Outcome::Retry(failure) => {
                    assert!(!rejected.contains(&status), "{last:?} {status}");
                    assert_eq!(failure.retry_after, Some(7 * SECONDS), "{status}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn on_error_receives_the_kind_the_status_and_the_answer() {
    for (status, error) in [
        (408, "request_timeout"),
        (425, "too_early"),
        (429, "throttled"),
        (500, "unavailable"),
        (503, "unavailable"),
        (403, "refused"),
        (404, "not_found"),
    ] {
        let on_error = step(StepKind::OnError(vec![map("{error, status, answer}")]));
        let reply = answer(status, &[], "busy");
        let steps = vec![step(http(post(URL))), on_error];
        let ended = run(steps, "b", vec![(json!({"http": {}}), reply)]).await;
        let wanted = json!({"error": error, "status": status, "answer": "busy"});
        assert_eq!(ended.value(), wanted, "{}", ended.said());
    }
}

#[tokio::test]
async fn calls_that_fail_are_tried_again_unless_the_address_is_refused() {
    for (kind, code, wanted) in [
        (FailureKind::Disconnected, codes::HTTP_FAILED, "retry"),
        (FailureKind::Timeout, codes::HTTP_FAILED, "retry"),
        (FailureKind::Refused, codes::TLS_FAILED, "retry"),
        (FailureKind::Refused, codes::ADDRESS_REFUSED, "reject"),
    ] {
        let reply = Reply::Failed(Failure::new(kind, code, "call"));
        let ended = run(vec![step(http(post(URL)))], "b", vec![(json!({"http": {}}), reply)]).await;
        assert!(ended.said().starts_with(wanted), "{}", ended.said());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_dropped_and_tried_again() {
    let ended = run(vec![step(http(post(URL)))], "b", vec![(json!({"http": {}}), Reply::Silence)]).await;
    assert!(ended.said().starts_with("retry step-timeout: "), "{}", ended.said());
    assert_eq!(ended.trace[0].took, Duration::from_secs(30));
    assert_eq!(ended.script.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_drops_its_call_and_leaves_its_steps_on_record() {
    use std::sync::Arc;
    use warren_engine::memory::Script;
    use warren_engine::pipeline::Pipeline;
    use warren_engine::pipeline::document::BodyForm;
    use warren_engine::pipeline::plan::PipelinePlan;
    use warren_engine::ports::Handler;
    let script = Script::new([(json!({"http": {}}), Reply::Silence)]);
    let plan = PipelinePlan { steps: vec![map("."), step(http(post(URL)))] };
    let pipeline = Pipeline::new(Arc::new(plan), script.outside(&[], &[]), BodyForm::Text).unwrap();
    let (job, attempt) = (job(b"b"), super::build::attempt());
    assert!(tokio::time::timeout(SECONDS, pipeline.handle(&job, &attempt)).await.is_err());
    assert_eq!(script.under_way(), 0);
    let steps = attempt.trace.take();
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[1].path.as_str(), steps[1].took), ("2.http", SECONDS));
    assert_eq!(steps[1].failure.as_ref().unwrap().code, codes::CANCELLED);
}

#[tokio::test]
async fn a_url_made_of_message_data_is_guarded_unless_its_host_is_not() {
    use std::sync::{Arc, Mutex};
    use warren_engine::pipeline::outside::{HttpAnswer, HttpRequest};
    #[derive(Default)]
    struct Keeps(Mutex<Vec<HttpRequest>>);
    #[async_trait::async_trait]
    impl warren_engine::ports::HttpCaller for Keeps {
        async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
            self.0.lock().unwrap().push(request.clone());
            Ok(HttpAnswer { status: 200, ..HttpAnswer::default() })
        }
    }
    for (url, origin, guarded) in [
        ("https://stock.example/{{ value.body }}", Some("https://stock.example"), false),
        // What looks like the origin and is not.
        ("https://stock.example{{ value.body }}", Some("https://stock.example"), true),
        ("{{ value.body }}", None, true),
    ] {
        let keeps = Arc::new(Keeps::default());
        let script = warren_engine::memory::Script::new([]);
        let outside = warren_engine::pipeline::Outside { http: keeps.clone(), ..script.outside(&[], &[]) };
        let mut call = post(url);
        call.origin = origin.map(str::to_owned);
        call.allow = vec!["10.0.0.0/8".into()];
        let plan = warren_engine::pipeline::plan::PipelinePlan { steps: vec![step(http(call))] };
        let form = warren_engine::pipeline::document::BodyForm::Text;
        let pipeline = warren_engine::pipeline::Pipeline::new(Arc::new(plan), outside, form).unwrap();
        pipeline.run(&job(b"@127.0.0.1/"), &super::build::attempt()).await;
        let request = keeps.0.lock().unwrap().remove(0);
        assert_eq!(request.guard.is_some(), guarded, "{url}");
        if let Some(guard) = request.guard {
            assert_eq!(guard.allow, ["10.0.0.0/8"]);
        }
    }
}

#[tokio::test]
async fn a_message_is_published_and_its_confirm_awaited() {
    let route =
        PublishRoute::Exchange { exchange: text("events"), routing_key: text("order.{{ value.sku }}") };
    let mut event = publish(route);
    event.properties = Pairs::Named(vec![("message_id".into(), Given::Text(text("m-{{ value.sku }}")))]);
    event.headers =
        Pairs::Named(vec![("n".into(), Given::Value(json!(5))), ("s".into(), Given::Text(text("x")))]);
    let steps = vec![map(".body | fromjson"), step(StepKind::Publish(Box::new(event)))];
    let expected = json!({"publish": {"to": "rabbit", "exchange": "events", "routing_key": "order.a", "body": {"sku": "a"},
        "properties": {"content_type": "application/json", "delivery_mode": 2, "message_id": "m-a"}, "headers": {"n": 5, "s": "x"}}});
    let ended = run(steps, r#"{"sku": "a"}"#, vec![(expected, Reply::Confirmed)]).await;
    assert_eq!(ended.value(), json!({"sku": "a"}));
}

#[tokio::test]
async fn properties_and_headers_of_the_message_can_go_on() {
    let mut copy = publish(PublishRoute::Queue(text("copies")));
    copy.body = body("$message.body");
    copy.properties = Pairs::Computed(jq("$message.properties"));
    copy.headers = Pairs::Computed(jq("$message.headers + {hop: true}"));
    let mut job = job(b"text");
    job.message.properties.correlation_id = Some("c".into());
    job.message.properties.headers.set("n", warren_engine::message::HeaderValue::I64(1));
    let expected = json!({"publish": {"queue": "copies", "body": "text",
        "properties": {"correlation_id": "c", "delivery_mode": 2}, "headers": {"n": 1, "hop": true}}});
    let ended =
        run_job(vec![step(StepKind::Publish(Box::new(copy)))], &job, vec![(expected, Reply::Confirmed)])
            .await;
    assert_eq!(ended.said(), "ok");
    assert_eq!(ended.script.made()[0]["publish"]["properties"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn the_user_id_of_the_message_goes_on_only_where_it_is_asked_for() {
    let mut job = job(b"text");
    job.message.properties.user_id = Some("shop".into());
    let cases = [
        ("$message.properties", None),
        ("$message.properties + {priority: 1}", None),
        ("$message.properties + {user_id: $message.properties.userId}", Some("shop")),
        ("$message.properties + {userId: \"warren\"}", Some("warren")),
    ];
    for (expression, user_id) in cases {
        let mut copy = publish(PublishRoute::Queue(text("copies")));
        copy.body = body("$message.body");
        copy.properties = Pairs::Computed(jq(expression));
        let expected = json!({"publish": {"queue": "copies"}});
        let steps = vec![step(StepKind::Publish(Box::new(copy)))];
        let ended = run_job(steps, &job, vec![(expected, Reply::Confirmed)]).await;
        assert_eq!(ended.said(), "ok");
        let made = ended.script.made();
        assert_eq!(
            made[0]["publish"]["properties"].get("user_id").and_then(Value::as_str),
            user_id,
            "{expression}"
        );
    }
    let mut named = publish(PublishRoute::Queue(text("copies")));
    named.body = body("$message.body");
    named.properties =
        Pairs::Named(vec![("user_id".into(), Given::Text(text("{{ message.properties.userId }}")))]);
    let expected = json!({"publish": {"queue": "copies", "properties": {"user_id": "shop"}}});
    let steps = vec![step(StepKind::Publish(Box::new(named)))];
    let ended = run_job(steps, &job, vec![(expected, Reply::Confirmed)]).await;
    assert_eq!(ended.said(), "ok");
}

#[tokio::test]
async fn without_a_confirm_a_publish_is_tried_again() {
    let failure = || Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, "publish");
    for reply in [Reply::Failed(failure()), Reply::Unknown(failure())] {
        let steps =
            vec![step(StepKind::Publish(Box::new(publish(PublishRoute::Queue(text("q")))))), map("1")];
        let said = run(steps, "b", vec![(json!({"publish": {}}), reply)]).await.said();
        assert!(said.starts_with("retry no-such-queue"), "{said}");
    }
}

#[tokio::test]
async fn an_answer_goes_to_who_asked() {
    let reply = || vec![step(StepKind::Reply(ReplyStep { body: body("{ok: true}"), timeout: SECONDS }))];
    let mut job = job(b"b");
    assert!(run_job(reply(), &job, vec![]).await.said().starts_with("reject no-reply-to"));
    job.message.properties.reply_to = Some("answers".into());
    job.message.properties.correlation_id = Some("c-1".into());
    let expected =
        json!({"reply": {"queue": "answers", "body": {"ok": true}, "properties": {"correlation_id": "c-1"}}});
    let ended = run_job(reply(), &job, vec![(expected, Reply::Confirmed)]).await;
    assert_eq!((ended.said().as_str(), ended.script.missing().len()), ("ok", 0));
    // Who asked is gone.
    let gone = Reply::Failed(Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, "publish"));
    assert!(
        run_job(reply(), &job, vec![(json!({"reply": {}}), gone)])
            .await
            .said()
            .starts_with("reject no-such-queue")
    );
}

#[tokio::test]
async fn a_statement_gets_parameters_only() {
    let ended = run(
        vec![map(".body | fromjson"), step(StepKind::Sql(sql()))],
        r#"{"n": 2, "sku": "a'; DROP TABLE stock; --"}"#,
        vec![(
            json!({"sql": {"source": "shop", "statement": "UPDATE stock SET n = n - $1 WHERE sku = $2", "params": [2, "a'; DROP TABLE stock; --"]}}),
            Reply::Sql(SqlAnswer { rows: vec![json!({"n": 3})], affected: 1 }),
        )],
    )
    .await;
    assert_eq!(ended.value(), json!({"rows": [{"n": 3}], "affected": 1}));
    let mut each = sql();
    each.each = Some(jq(".lines"));
    let expected = json!({"sql": {"each": [[1, "a"], [2, "b"]]}});
    let lines = r#"{"lines": [{"n": 1, "sku": "a"}, {"n": 2, "sku": "b"}]}"#;
    let answered = vec![(expected, Reply::Sql(SqlAnswer { rows: vec![], affected: 2 }))];
    let ended = run(vec![map(".body | fromjson"), step(StepKind::Sql(each))], lines, answered).await;
    assert_eq!(ended.value()["affected"], 2);
}

#[tokio::test]
async fn exit_codes_end_in_what_the_contract_says() {
    for (code, wanted) in
        [(0, "ok"), (75, "retry"), (65, "reject"), (1, "retry"), (2, "retry"), (127, "retry"), (255, "retry")]
    {
        let end = CommandEnd { code, stdout: "{\"a\": 1}\n".into(), stderr: "why\n".into() };
        let expected = json!({"exec": {"command": "check", "args": ["--id", "7"], "stdin": {"id": 7}}});
        let steps = vec![map(".body | fromjson"), step(StepKind::Exec(exec()))];
        let ended = run(steps, r#"{"id": 7}"#, vec![(expected, Reply::Command(end))]).await;
        let said = ended.said();
        assert_eq!(said.split(' ').next().unwrap(), wanted, "{code}");
        if code == 0 {
            assert_eq!(ended.value(), json!({"a": 1}));
        } else {
            assert!(said.contains(&format!("exit code {code}: why")), "{said}");
        }
    }
}

#[tokio::test]
async fn what_a_command_wrote_is_json_or_text() {
    for (stdout, wanted) in
        [("", Value::Null), ("plain\n", json!("plain")), ("[1]", json!([1])), ("{\"a\":", json!("{\"a\":"))]
    {
        let end = CommandEnd { code: 0, stdout: stdout.into(), stderr: "".into() };
        let steps = vec![step(StepKind::Exec(exec()))];
        assert_eq!(run(steps, "b", vec![(json!({"exec": {}}), Reply::Command(end))]).await.value(), wanted);
    }
}

#[tokio::test]
async fn fail_and_log() {
    for (end, wanted) in [
        (End::Retry, "retry failed-on-purpose: no b (step 2.fail)"),
        (End::Reject, "reject failed-on-purpose: no b (step 2.fail)"),
    ] {
        let log = LogStep { message: text("got {{ message.body }}"), level: LogLevel::Info };
        let fail = FailStep { reason: text("no {{ message.body }}"), end };
        let ended = run(vec![step(StepKind::Log(log)), step(StepKind::Fail(fail))], "b", vec![]).await;
        assert_eq!(ended.said(), wanted);
        assert_eq!(ended.trace[0].note.as_deref(), Some("got b"));
    }
}

#[tokio::test]
async fn a_pipeline_that_names_what_is_not_there_is_not_made() {
    use std::sync::Arc;
    let script = warren_engine::memory::Script::new([]);
    let plan = warren_engine::pipeline::plan::PipelinePlan { steps: vec![step(StepKind::Sql(sql()))] };
    let form = warren_engine::pipeline::document::BodyForm::Text;
    let failure =
        warren_engine::pipeline::Pipeline::new(Arc::new(plan), script.outside(&[], &[]), form).unwrap_err();
    assert_eq!(failure.code, codes::UNKNOWN_NAME);
}
