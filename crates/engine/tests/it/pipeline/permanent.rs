//! What fails in the same way in every attempt is rejected at once (F22); what may not is retried.

use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::memory::Reply;
use warren_engine::pipeline::plan::{
    ExecStep, ForEachStep, Given, Pairs, Params, PublishRoute, PublishStep, ReplyStep, SqlStep, Step,
    StepKind,
};
use warren_engine::pipeline::schema::Schema;

use super::build::{SECONDS, answer, body, http, jq, map, named, post, run, run_job, step, text};

const URL: &str = "https://stock.example/reserve";

fn publish(properties: Pairs) -> StepKind {
    StepKind::Publish(Box::new(PublishStep {
        to: "rabbit".into(),
        route: PublishRoute::Queue(text("out")),
        body: body("$message.body"),
        properties,
        headers: Pairs::Named(Vec::new()),
        timeout: 30 * SECONDS,
    }))
}

fn property(name: &str, value: &str) -> StepKind {
    publish(Pairs::Named(vec![(name.to_owned(), Given::Text(text(value)))]))
}

fn sql(params: Params, each: Option<&str>) -> StepKind {
    StepKind::Sql(SqlStep {
        source: "shop".into(),
        statement: "select $1".into(),
        params,
        each: each.map(jq),
        timeout: 30 * SECONDS,
        rows_max: 10,
    })
}

fn exec(argument: &str) -> StepKind {
    StepKind::Exec(ExecStep {
        command: "check".into(),
        args: vec![text(argument)],
        environment: Vec::new(),
        stdin: jq("null"),
        timeout: 30 * SECONDS,
        output_bytes_max: 1 << 20,
    })
}

fn for_each(items: &str, steps: Vec<Step>) -> Step {
    step(StepKind::ForEach(ForEachStep { items: jq(items), concurrency: 1, steps }))
}

fn with_header(value: &str) -> StepKind {
    let mut call = post(URL);
    call.headers = vec![("x-id".into(), text(value))];
    call.body = None;
    http(call)
}

/// How a run of these steps over the message ends, in a word.
async fn ends(steps: Vec<Step>, message: &str, calls: Vec<(Value, Reply)>) -> String {
    let ended = run(steps, message, calls).await;
    ended.said().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_fails_over_the_message_alone_rejects_it() {
    let schema = Schema::compile(json!({"required": ["nope"]})).unwrap();
    let cases: Vec<(&str, Vec<Step>)> = vec![
        ("no JSON", vec![map(".body | fromjson")]),
        ("an error of its own", vec![map("error(.body)")]),
        ("no result", vec![map("empty")]),
        ("several results", vec![map("1, 2")]),
        ("an infinity", vec![map("1 / 0")]),
        ("without an end", vec![map("def f: [f]; f")]),
        ("a condition", vec![step(StepKind::Filter(jq(".body | tonumber")))]),
        ("a schema", vec![step(StepKind::Validate(schema))]),
        ("an earlier value", vec![map("{n: .body}"), map(".n | tonumber")]),
        ("an earlier step", vec![named("a", StepKind::Map(jq(".body"))), map("$steps.a | tonumber")]),
        ("items", vec![for_each(".body", vec![])]),
        ("an item", vec![for_each("[.body]", vec![map("tonumber")])]),
        ("a template", vec![step(with_header("{{ message.body | divided_by: 0 }}"))]),
        ("a header", vec![step(with_header("a{{ message.body }}\nb"))]),
        ("an argument", vec![step(exec("a\0{{ message.body }}"))]),
        ("base64", {
            let mut call = post(URL);
            call.body.as_mut().unwrap().binary = true;
            vec![map("[1]"), step(http(call))]
        }),
        ("priority above 255", vec![step(property("priority", "300"))]),
        ("priority below 0", vec![step(property("priority", "-1"))]),
        ("a fraction", vec![step(property("priority", "1.5"))]),
        ("no number", vec![step(property("priority", "{{ message.body }}"))]),
        ("delivery mode 0", vec![step(property("delivery_mode", "0"))]),
        ("delivery mode 3", vec![step(property("delivery_mode", "3"))]),
        ("expiration", vec![step(property("expiration", "4294967296"))]),
        ("timestamp", vec![step(property("timestamp", "{{ value.body }}"))]),
        ("computed", vec![step(publish(Pairs::Computed(jq("{priority: 256}"))))]),
        ("no object", vec![step(publish(Pairs::Computed(jq(".body"))))]),
        ("no such property", vec![step(publish(Pairs::Computed(jq("{nope: 1}"))))]),
        ("parameters", vec![step(sql(Params::Computed(jq(".body")), None))]),
        ("each", vec![step(sql(Params::Listed(Vec::new()), Some(".body")))]),
        ("an on_error", {
            let on_error = Some(vec![map(".message_in.body | tonumber")]);
            vec![Step { on_error, ..map("error") }]
        }),
    ];
    for (name, steps) in cases {
        assert_eq!(ends(steps, "text", vec![]).await, "reject", "{name}");
    }
}

#[tokio::test]
async fn what_others_say_of_the_message_alone_rejects_it() {
    let invalid = |code| Reply::Failed(Failure::new(FailureKind::Invalid, code, "call"));
    let refused = |code| Reply::Failed(Failure::new(FailureKind::Invalid, code, "publish"));
    let queue = PublishRoute::Queue(text("{{ message.body }}"));
    let StepKind::Publish(mut long) = publish(Pairs::Named(Vec::new())) else { panic!() };
    long.route = queue;
    let mut call = post("{{ message.body }}");
    call.origin = None;
    let reply = ReplyStep { body: body("$message.body"), timeout: SECONDS };
    let job = {
        let mut job = super::build::job(b"text");
        job.message.properties.reply_to = Some("asker".into());
        job
    };
    for (steps, kind, reply) in [
        (vec![step(http(call))], "http", invalid(codes::INVALID_VALUE)),
        (vec![step(sql(Params::Listed(vec![jq(".body")]), None))], "sql", invalid(codes::INVALID_PARAMETER)),
        (
            vec![step(sql(Params::Listed(vec![jq(".")]), Some("[.body]")))],
            "sql",
            invalid(codes::INVALID_PARAMETER),
        ),
        (vec![step(exec("{{ message.body }}"))], "exec", invalid(codes::INVALID_VALUE)),
        (vec![step(StepKind::Publish(long))], "publish", refused(codes::VALUE_TOO_LONG)),
        (vec![step(property("user_id", "x"))], "publish", refused(codes::INVALID_PROPERTY)),
        (vec![step(StepKind::Reply(reply))], "reply", refused(codes::MESSAGE_TOO_LARGE)),
    ] {
        let ended = run_job(steps, &job, vec![(json!({kind: {}}), reply)]).await;
        assert!(ended.said().starts_with("reject"), "{kind}: {}", ended.said());
    }
}

#[tokio::test]
async fn what_another_attempt_may_find_otherwise_is_retried() {
    let mut calls = vec![
        ("the time", vec![map("if now > 0 then error(\"not yet\") else . end")]),
        ("the attempt", vec![map("if .envelope.attempt < 3 then error(\"wait\") else . end")]),
        ("an earlier value of the attempt", vec![map("{n: .envelope.attempt}"), map(".n | error")]),
        ("a header with the time", vec![step(with_header("{{ 'now' | date: '%s' | divided_by: 0 }}"))]),
        ("a header of the attempt", vec![step(with_header("{{ message.envelope.attempt }}\n"))]),
        ("a whole message in a text", vec![step(with_header("{{ message }}\n"))]),
    ];
    for (name, steps) in calls.drain(..) {
        assert_eq!(ends(steps, "text", vec![]).await, "retry", "{name}");
    }
    let called = || step(http(post(URL)));
    let kept = || named("stock", http(post(URL)));
    for (name, steps) in [
        ("an answer", vec![called(), map(".body.missing | tonumber")]),
        ("what was made of it", vec![called(), map(".body"), map(".missing | tonumber")]),
        ("a kept answer", vec![kept(), map("$message.body"), map("$steps.stock.body.missing | tonumber")]),
        ("items of it", vec![called(), for_each(".body", vec![])]),
        ("an item of it", vec![called(), for_each("[.body]", vec![map("tonumber")])]),
        ("a property of it", vec![called(), step(property("priority", "{{ value.body.missing }}x"))]),
        ("an argument of it", vec![called(), step(exec("\0{{ value.status }}"))]),
        ("parameters of it", vec![called(), step(sql(Params::Computed(jq(".body")), None))]),
    ] {
        let reply = answer(200, &[("content-type", "application/json")], "{}");
        assert_eq!(ends(steps, "text", vec![(json!({"http": {}}), reply)]).await, "retry", "{name}");
    }
}

#[tokio::test]
async fn the_message_alone_is_told_from_an_answer_before_it() {
    let reply = || vec![(json!({"http": {}}), answer(200, &[], "{}"))];
    for steps in [
        vec![step(http(post(URL))), map("$message.body | fromjson")],
        vec![step(http(post(URL))), step(property("priority", "{{ message.body }}"))],
        vec![step(http(post(URL))), map("$message | {body}"), map(".body | tonumber")],
    ] {
        assert_eq!(ends(steps, "text", reply()).await, "reject");
    }
}
