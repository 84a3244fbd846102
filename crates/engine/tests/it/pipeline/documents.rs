//! The document that a pipeline receives.

use serde_json::{Value, json};
use warren_engine::message::{HeaderValue, Headers};
use warren_engine::outcome::Outcome;
use warren_engine::pipeline::document::{BodyForm, document};

use super::build::{attempt, job, map, run_job};

fn typed_headers() -> Headers {
    let table: Headers = [("k".to_owned(), HeaderValue::Array(vec![HeaderValue::I8(-1), HeaderValue::Void]))]
        .into_iter()
        .collect();
    [
        ("text", HeaderValue::Text("é".into())),
        ("bool", HeaderValue::Bool(true)),
        ("long", HeaderValue::I64(i64::MIN)),
        ("double", HeaderValue::F64(0.5)),
        ("float", HeaderValue::F32(0.1)),
        ("nan", HeaderValue::F64(f64::NAN)),
        ("decimal", HeaderValue::Decimal { scale: 2, value: 5 }),
        ("time", HeaderValue::Timestamp(1_700_000_000)),
        ("bytes", HeaderValue::Bytes(vec![0xff, 0])),
        ("table", HeaderValue::Table(table)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[tokio::test]
async fn a_message_of_rabbitmq_has_exactly_these_names() {
    let mut job = job(b"body");
    job.message.properties.headers = typed_headers();
    job.message.properties.priority = Some(3);
    job.message.properties.timestamp = Some(1_700_000_000);
    job.message.properties.content_type = Some("text/plain".into());
    job.envelope.consumer_tag = "ctag".into();
    let found = document(&job, &attempt(), BodyForm::Text).unwrap();
    let wanted = json!({
        "body": "body",
        "properties": {
            "appId": null, "classId": null, "clusterId": null, "contentEncoding": null, "contentType": "text/plain",
            "correlationId": null, "deliveryMode": 2, "expiration": null, "messageId": null, "priority": 3, "replyTo": null,
            "type": null, "userId": null, "timestamp": 1_700_000_000,
        },
        "headers": {
            "text": "é", "bool": true, "long": i64::MIN, "double": 0.5, "float": 0.1, "nan": null,
            "decimal": serde_json::from_str::<Value>("0.05").unwrap(), "time": 1_700_000_000, "bytes": "/wA=",
            "table": {"k": [-1, null]},
        },
        "envelope": {
            "deliveryTag": 1, "exchange": "", "routingKey": "orders", "queue": "orders", "redelivered": false, "attempt": 1,
            "consumerTag": "ctag", "receivedAt": "2026-01-01T00:00:00.250Z",
        },
    });
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn what_sqs_says_of_a_message_stands_in_the_envelope() {
    let mut job = job(b"body");
    job.envelope.system = [("MessageGroupId", "g"), ("SentTimestamp", "1767225600000"), ("queue", "no")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let found = document(&job, &attempt(), BodyForm::Text).unwrap();
    assert_eq!(found["envelope"]["MessageGroupId"], "g");
    assert_eq!(found["envelope"]["SentTimestamp"], "1767225600000");
    assert_eq!(found["envelope"]["queue"], "orders");
}

#[tokio::test]
async fn bytes_are_base64_or_rejected() {
    let job = job(b"\xff\x00");
    assert_eq!(document(&job, &attempt(), BodyForm::Base64).unwrap()["body"], "/wA=");
    for steps in [vec![map(".body")], Vec::new()] {
        let ended = run_job(steps, &job, Vec::new()).await;
        assert!(
            matches!(&ended.run.outcome, Outcome::Reject(failure) if failure.what == "not text"),
            "{}",
            ended.said()
        );
    }
}
