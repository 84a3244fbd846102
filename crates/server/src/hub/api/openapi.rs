//! The OpenAPI document, made of the table of operations and the schemas here.

use serde_json::{Map, Value, json};

use warren_engine::hub::params::IN_FLIGHT_MAX;

use super::PREFIX;
use super::operations::{OPERATIONS, Operation};

/// What any operation that is not open may be answered besides.
const COMMON_PROBLEMS: [u16; 10] = [400, 401, 403, 408, 413, 415, 429, 500, 502, 503];

/// The document.
pub(in crate::hub) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(format!("{PREFIX}{}", operation.path)).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Warren hub",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP in front of queues and exchanges.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "basic": { "type": "http", "scheme": "basic" } },
            "schemas": schemas(),
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, schema, text) in operation.success {
        let mut response = json!({ "description": text });
        if let Some(schema) = schema {
            response["content"] = content("application/json", schema);
        }
        responses.insert(status.to_string(), response);
    }
    let common = COMMON_PROBLEMS.iter().filter(|_| !operation.open);
    for status in operation.problems.iter().chain(common) {
        responses.insert(
            status.to_string(),
            json!({ "description": "a problem", "content": content("application/problem+json", "Problem") }),
        );
    }
    let mut described = json!({
        "operationId": format!("{:?}", operation.op),
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": responses,
        "security": if operation.open { json!([]) } else { json!([{ "basic": [] }]) },
    });
    if let Some(schema) = operation.body {
        described["requestBody"] =
            json!({ "required": true, "content": content("application/json", schema) });
    }
    described
}

fn content(media: &str, schema: &str) -> Value {
    json!({ media: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn parameters(operation: &Operation) -> Value {
    let in_path = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for (name, text) in operation.query {
        parameters.push(
            json!({ "name": name, "in": "query", "description": text, "schema": { "type": "string" } }),
        );
    }
    if operation.path == "/publish" {
        let text =
            "The same key and request get the same answer for a day, and the message is published once";
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "description": text,
            "schema": { "type": "string", "maxLength": 255 },
        }));
    }
    Value::Array(parameters)
}

/// An object of these members.
fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// A schema by its name.
pub(super) fn schema(name: &str) -> Value {
    schemas()[name].take()
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let free = json!({ "type": "object", "additionalProperties": true });
    let moment = json!({ "type": "string", "format": "date-time" });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let or_null = |schema: &Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let typed = json!({
        "type": "object",
        "additionalProperties": true,
        "description": "Plain JSON, or {\"$type\": \"int8\", \"value\": 1} with one of the types void, bool, int8, uint8, int16, uint16, \
            int32, uint32, int64, float, double, decimal (with `scale`), text, bytes (base64), timestamp, array, table",
    });
    let (text_or_null, secret) = (or_null(&text), json!({ "type": "string", "format": "password" }));
    let whole = |least: u64, most: u64| json!({ "type": "integer", "minimum": least, "maximum": most });
    let contact = object(
        &["app_name"],
        &json!({
            "app_name": text, "contact_name": text_or_null, "phone": text_or_null, "email": text_or_null,
            "description": text_or_null,
        }),
    );
    let properties = object(
        &[],
        &json!({
            "content_type": text_or_null, "content_encoding": text_or_null,
            "persistent": or_null(&json!({ "type": "boolean", "default": true })), "priority": or_null(&whole(0, 255)),
            "correlation_id": text_or_null, "reply_to": text_or_null,
            "expiration": or_null(&json!({ "type": "string", "pattern": "^[0-9]{1,10}$" })),
            "message_id": text_or_null, "timestamp": or_null(&number), "type": text_or_null, "user_id": text_or_null,
            "app_id": text_or_null,
        }),
    );
    let signing = json!({ "enum": ["sha1", "sha256", "sha384", "sha512", "standard"], "default": "sha256" });
    let status = json!({ "type": ["integer", "string"], "description": "404, \"4xx\" or \"400-417\"" });
    let statuses = json!({ "anyOf": [status, list(status.clone())] });
    let mut shown = json!({
        "id": text, "vhost": text, "queue": text, "exchange": text, "topic": text, "callback": text,
        "protocol": { "enum": ["rabbithub", "websub"] }, "state": { "enum": ["active", "waiting", "inactive"] },
        "waiting_because": text,
        "inactive_because": { "enum": ["unsubscribed", "expired", "failed", "gone", "imported"] },
        "lease_seconds": number, "expires_at": moment, "created_at": moment, "verified_at": or_null(&moment),
        "max_tps": number, "max_in_flight": or_null(&number), "signing": signing, "secret": or_null(&text),
        "basic_auth": or_null(&text), "contact": or_null(&free), "arguments": typed, "own_queue": or_null(&text),
        "user": or_null(&text),
    });
    shown["final_statuses"] = or_null(&list(status.clone()));
    shown["errors"] = or_null(&free);
    json!({
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": text, "title": text, "status": number, "detail": text,
                "code": { "type": "string", "description": "names a page of docs/errors" },
                "errors": list(object(&["pointer", "detail"], &json!({
                    "pointer": { "type": "string", "format": "json-pointer", "description": "the member of the body that is wrong" },
                    "detail": text,
                }))),
            },
        },
        "Health": object(&["status"], &json!({ "status": { "const": "ok" } })),
        "Publish": object(&[], &json!({
            "vhost": { "type": "string", "default": "/" }, "queue": text_or_null, "exchange": text_or_null,
            "routing_key": text, "body": text_or_null, "body_base64": text_or_null, "json": {}, "properties": properties,
            "headers": or_null(&typed),
        })),
        "Published": object(&["status"], &json!({ "status": { "const": "accepted" }, "message_id": or_null(&text) })),
        "Subscribe": object(&["callback"], &json!({
            "vhost": { "type": "string", "default": "/" }, "queue": text_or_null, "exchange": text_or_null,
            "topic": text_or_null, "callback": { "type": "string", "format": "uri" },
            "verify": or_null(&json!({ "enum": ["sync", "async"], "default": "async" })), "verify_token": or_null(&secret),
            "lease_seconds": or_null(&number), "max_tps": or_null(&whole(0, u32::MAX.into())),
            "max_in_flight": or_null(&whole(1, IN_FLIGHT_MAX.into())),
            "secret": or_null(&json!({ "type": "string", "format": "password", "maxLength": 199 })),
            "signing": or_null(&signing), "contact": or_null(&contact), "arguments": or_null(&typed),
            "basic_auth": or_null(&object(&["username", "password"], &json!({ "username": text, "password": secret }))),
            "final_statuses": or_null(&statuses),
        })),
        "Accepted": object(&["id", "state"], &json!({ "id": text, "state": { "const": "pending" } })),
        "Subscription": object(&["id", "vhost", "topic", "callback", "state"], &shown),
        "Page": object(&["subscriptions", "next"], &json!({
            "subscriptions": list(json!({ "$ref": "#/components/schemas/Subscription" })), "next": or_null(&text),
        })),
        "Patch": object(&[], &json!({
            "state": or_null(&json!({ "enum": ["active", "inactive"] })), "signing": or_null(&signing),
            "secret": or_null(&secret),
            "final_statuses": or_null(&statuses),
        })),
        "Export": object(&["subscriptions"], &json!({ "subscriptions": list(free.clone()) })),
        "ImportResults": object(&["results"], &json!({ "results": list(free.clone()) })),
        "Errors": object(&["errors"], &json!({ "errors": list(free.clone()) })),
        "Topics": object(&["hub", "exchanges", "foreign"], &json!({
            "hub": or_null(&text), "exchanges": list(free.clone()), "foreign": list(text.clone()),
        })),
        "Resource": object(&["vhost", "name"], &json!({ "vhost": text, "name": text, "type": or_null(&text) })),
        "Exchange": object(&["type"], &json!({ "type": text })),
    })
}
