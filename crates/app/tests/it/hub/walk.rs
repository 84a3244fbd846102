//! Every endpoint as a stranger, and as a user who may not.

use serde_json::Value;

use super::client::Ask;
use super::world::World;

/// A RabbitHub route: method, target, who may.
const ROUTES: &[(&str, &str, &str)] = &[
    ("PUT", "/endpoint/q/foo", "maker"),
    ("PUT", "/endpoint/x/fx", "maker"),
    ("PUT", "/endpoint/q/", "maker"),
    ("GET", "/endpoint/q/foo", "reader"),
    ("GET", "/endpoint/x/fx", "reader"),
    ("GET", "/endpoint/q/foo?hub.mode=generate_token&hub.intended_use=subscribe", "writer"),
    ("POST", "/endpoint/q/foo", "writer"),
    ("POST", "/endpoint/x/fx", "writer"),
    ("POST", "/endpoint/x/?hub.topic=foo", "writer"),
    ("GET", "/subscribe/q/foo", "writer"),
    ("POST", "/subscribe/q/foo?hub.mode=subscribe", "reader"),
    ("POST", "/subscribe/x/fx?hub.mode=unsubscribe", "reader"),
    ("DELETE", "/subscribe/q/foo?hub.callback=c&hub.topic=t", "maker"),
    ("DELETE", "/endpoint/q/foo", "maker"),
    ("DELETE", "/endpoint/x/fx", "maker"),
    ("GET", "/subscriptions", "boss"),
    ("POST", "/subscriptions", "boss"),
    ("GET", "/subscriptions/errors", "boss"),
    ("GET", "/subscriptions/q/foo?hub.callback=c&hub.topic=t", "boss"),
    ("GET", "/topics/%2F/secret/key", "reader"),
];

#[tokio::test]
async fn every_route_of_rabbithub_asks_who_it_is() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        world.estate.host("/").declare_exchange("fx", "fanout");
        for (method, target, who) in ROUTES {
            let ask = Ask::new(method, target);
            assert_eq!(world.send(ask.clone()).await.status, 401, "{method} {target} as a stranger");
            for user in ["nobody", "reader", "writer", "maker", "half"] {
                let description = *method == "GET" && !target.contains("hub.mode");
                let knows = description
                    && *who != "boss"
                    && !target.starts_with("/topics/")
                    && matches!(user, "reader" | "writer" | "maker");
                let status = world.send(ask.clone().login(user, "secret")).await.status;
                if user == *who || knows {
                    assert!(status != 401 && status != 403, "{method} {target} as {user}: {status}");
                } else {
                    assert_eq!(status, 403, "{method} {target} as {user}");
                }
            }
            // A virtual host that the user may not enter.
            if !target.starts_with("/subscriptions") && !target.starts_with("/topics") {
                let elsewhere = format!("/V{target}");
                let status = world.send(Ask::new(method, &elsewhere).login(who, "secret")).await.status;
                assert_eq!(status, 403, "{method} {elsewhere} as {who}");
                let nowhere = format!("/nosuch{target}");
                let status = world.send(Ask::new(method, &nowhere).login("boss", "secret")).await.status;
                assert_eq!(status, 403, "{method} {nowhere}");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_of_the_api_asks_who_it_is() {
    let world = World::start(false).await;
    world.queues(&["a"]);
    let document = world.send(Ask::new("GET", "/api/v1/openapi.json")).await.json();
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            walked += 1;
            let target =
                path.replace("{vhost}", "%2F").replace("{name}", "a").replace("{id}", &"0".repeat(32));
            let ask = Ask::new(&method.to_uppercase(), &target);
            let stranger = world.send(ask.clone()).await;
            if operation["security"] == Value::Array(Vec::new()) {
                assert_eq!(stranger.status, 200, "{method} {target}");
                continue;
            }
            assert_eq!(stranger.status, 401, "{method} {target}");
            assert_eq!(stranger.header("content-type"), Some("application/problem+json"));
            assert!(stranger.header("www-authenticate").is_some());
            let publish = serde_json::json!({"queue": "a", "body": "x"});
            let subscribe = serde_json::json!({"queue": "a", "callback": "http://127.0.0.1/"});
            let body = match path.as_str() {
                "/api/v1/publish" => publish,
                _ => subscribe,
            };
            let ask = ask.login("nobody", "secret").json(&body);
            let status = world.send(ask).await.status;
            let lists = (method.as_str(), path.as_str()) == ("get", "/api/v1/subscriptions");
            let expected = match path.as_str() {
                _ if lists => 200, // of nothing
                // Whoever may not know of one is told that there is none.
                "/api/v1/subscriptions/{id}" if method != "patch" => 404,
                _ => 403,
            };
            assert_eq!(status, expected, "{method} {target} as nobody");
        }
    }
    assert!(walked >= 18, "{walked}");
    assert_eq!(world.said("GET", "/api/v1/nosuch").await.0, 404);
    let wrong = world.boss(Ask::new("PUT", "/api/v1/publish")).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn every_name_in_the_document_is_there() {
    let world = World::start(false).await;
    let document = world.send(Ask::new("GET", "/api/v1/openapi.json")).await.json();
    fn names(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(name)) = members.get("$ref") {
                    found.push(name.clone());
                }
                members.values().for_each(|value| names(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    names(&document, &mut found);
    assert!(found.len() > 20);
    for name in found {
        assert!(document.pointer(name.strip_prefix('#').unwrap()).is_some(), "{name}");
    }
}
