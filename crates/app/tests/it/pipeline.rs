//! `warren pipeline test`, as a person sees it.

use std::path::Path;

use crate::program::Program;
use warren_testkit::expected::compare;

fn shown(file: &str, code: i32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pipeline");
    let scratch = tempfile::tempdir().unwrap();
    for name in ["cases.yaml", "wrong.yaml", "broken.yaml", "calls.yaml"] {
        std::fs::copy(folder.join(name), scratch.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(folder.join("warren.yaml")).unwrap();
    let program = Program::configured(scratch.path(), &config);
    let path = scratch.path().join(file);
    let ended = program.run(&["pipeline", "test", path.to_str().unwrap()]);
    let prefix = format!("{}/", scratch.path().display());
    let text = format!("{}{}", ended.stdout, ended.stderr).replace(&prefix, "");
    compare(&folder.join(file.replace(".yaml", ".txt")), &text);
    assert_eq!(ended.code, Some(code), "{ended:?}");
}

#[test]
fn cases_that_hold_are_ok() {
    shown("cases.yaml", 0);
}

#[test]
fn what_is_not_as_expected_is_told_with_the_steps() {
    shown("wrong.yaml", 1);
}

#[test]
fn faults_of_the_file_are_told_with_their_places() {
    shown("broken.yaml", 2);
    shown("calls.yaml", 2);
}

#[test]
fn a_test_that_ran_nothing_has_failed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pipeline");
    let scratch = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(folder.join("warren.yaml")).unwrap();
    let program = Program::configured(scratch.path(), &config);
    let cases = folder.join("cases.yaml");
    let cases = cases.to_str().unwrap();
    assert_eq!(program.run(&["pipeline", "test", cases, "--only", "swordfish"]).code, Some(1));
    let documents = program.documents(&["pipeline", "test", cases, "--only", "stock"], 0);
    assert_eq!(documents.len(), 2);
    assert_eq!((&documents[0]["ok"], &documents[1]["steps"][2]["path"]), (&true.into(), &"3.http".into()));
}

/// Answers one request with 201 and its own body.
async fn echo(listener: tokio::net::TcpListener) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = String::new();
    while !request.ends_with('}') {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap();
        assert!(count > 0, "it broke off: {request}");
        request.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let answer = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    request
}

#[tokio::test]
async fn a_message_goes_through_a_pipeline_of_real_parts() {
    use warren_app::assemble::{self, Callers};
    use warren_config::{Environment, load_with};
    use warren_engine::delivery::{Envelope, Job};
    use warren_engine::message::{Message, Properties, Route};
    use warren_engine::outcome::{Attempt, Outcome, Trace};
    use warren_engine::pipeline::document::BodyForm;
    use warren_engine::ports::Handler;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut receiver = tokio::task::JoinSet::new();
    receiver.spawn(echo(listener));
    let folder = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database
        .execute_batch("CREATE TABLE stock (sku TEXT, n INT); INSERT INTO stock VALUES ('a', 5)")
        .unwrap();
    let config = format!(
        r#"
sources:
  shop: {{type: sqlite, path: shop.db}}
brokers:
  local: {{type: embedded, queues: {{done: {{}}, answers: {{}}}}}}
pipelines:
  order:
    - {{id: order, map: ".body | fromjson"}}
    - http: {{url: "http://{address}/reserve", body: "{{sku}}"}}
    - exec: {{command: sh, args: ["-c", "cat"], stdin: .body}}
    - sql: {{source: shop, statement: "UPDATE stock SET n = n - ? WHERE sku = ? RETURNING n", params: [$steps.order.n, .sku]}}
    - publish: {{to: local, queue: done, body: ".rows[0]"}}
    - reply: {{body: "{{left: .rows[0].n}}"}}
"#
    );
    let path = folder.path().join("warren.yaml");
    std::fs::write(&path, config).unwrap();
    let project = load_with(&path, &Environment::default()).unwrap();
    let broker = assemble::broker(&project, "local").unwrap();
    let callers = Callers::new().unwrap();
    let plan = &project.pipelines["order"];
    let pipeline =
        assemble::pipeline(&project, plan, BodyForm::Text, "local", &callers, &mut |_| Ok(broker.clone()))
            .unwrap();
    let properties = Properties { reply_to: Some("answers".into()), ..Properties::default() };
    let message = Message { body: r#"{"sku": "a", "n": 2}"#.into(), properties };
    let job = Job { message, envelope: Envelope::default() };
    let attempt = Attempt {
        consumer: "orders".into(),
        number: 1,
        again: false,
        received_at_ms: 0,
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(300),
        trace: Trace::default(),
    };
    let outcome = pipeline.handle(&job, &attempt).await;
    assert!(matches!(outcome, Outcome::Ok), "{outcome:?}: {:?}", attempt.trace.take());
    assert!(receiver.join_next().await.unwrap().unwrap().ends_with(r#"{"sku":"a"}"#));
    for (queue, wanted) in [("done", r#"{"n":3}"#), ("answers", r#"{"left":3}"#)] {
        let mut consumer = broker.consume(queue, 1).await.unwrap();
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.job().message.body, wanted.as_bytes(), "{}", Route::Queue(queue.into()));
    }
}
