//! RabbitHub's own test suite, as a table with expectations: in compatibility mode line by line, and beside it where the default differs.

use axum::http::Method;
use serde_json::json;
use warren_engine::hub::subscription::SubscriptionState;
use warren_engine::message::HeaderValue;

use super::client::Ask;
use super::subscriber::Subscriber;
use super::world::{World, escaped};

const NOT_FOUND: (u16, &str) = (404, "Not found.");

fn is(said: &(u16, String), expected: (u16, &str)) -> bool {
    (said.0, said.1.as_str()) == expected
}

/// A form that subscribes; the callback's path decides what it answers.
fn form(subscriber: &Subscriber, path: &str, topic: &str, more: &str) -> String {
    let callback = escaped(&subscriber.url(path));
    format!("hub.mode=subscribe&hub.callback={callback}&hub.topic={topic}{more}")
}

#[tokio::test]
async fn lines_1_to_6_endpoints() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        // 1
        let made = world.boss(Ask::new("PUT", "/endpoint/q/foo")).await;
        assert_eq!((made.status, made.text().as_str()), (201, ""));
        assert_eq!(
            made.header("location"),
            Some(format!("http://{}/endpoint/q/foo", world.address).as_str())
        );
        assert!(is(&world.said("PUT", "/endpoint/q/foo").await, (204, "")));
        // 2
        let said = world.said("PUT", "/endpoint/x/fx?amqp.exchange_type=nosuch").await;
        assert!(is(&said, (400, "Invalid exchange type")), "{said:?}");
        assert_eq!(world.said("PUT", "/endpoint/x/fx").await.0, 201);
        assert_eq!(world.said("PUT", "/endpoint/x/fx").await.0, 204);
        // Q: RabbitHub did not look at the type.
        let other = world.said("PUT", "/endpoint/x/fx?amqp.exchange_type=topic").await.0;
        assert_eq!(other, if compat { 204 } else { 409 });
        // 3, before anybody has logged in
        let said = world.send(Ask::new("PUT", "/endpoint/q/amq.x")).await.said();
        assert!(is(&said, (400, "Invalid queue name")), "{said:?}");
        // 4
        assert!(is(
            &world.said("DELETE", "/endpoint/x/").await,
            (403, "Deleting the default exchange is not permitted")
        ));
        // 5
        assert!(is(&world.said("DELETE", "/endpoint/q/none").await, NOT_FOUND));
        // 6
        let said = world.said("POST", "/endpoint/x/none?hub.topic=a").await;
        assert!(is(&said, (404, "exchange not found")), "{said:?}");
        assert!(is(&world.said("POST", "/endpoint/q/none").await, NOT_FOUND));
        assert_eq!(world.said("DELETE", "/endpoint/q/foo").await.0, 204);
        assert_eq!(world.said("DELETE", "/endpoint/x/fx").await.0, 204);
        assert!(is(&world.said("PUT", "/endpoint/q/x?hub.mode=subscribe").await, (400, "Invalid operation")));
        // A name for whoever has none, and a virtual host in `Location`.
        let named = world.boss(Ask::new("PUT", "/endpoint/q/")).await;
        assert!(named.status == 201 && named.header("location").unwrap().contains("/endpoint/q/http.gen-"));
        let there = world.boss(Ask::new("PUT", "/V/endpoint/q/foo")).await;
        assert_eq!(
            there.header("location"),
            Some(format!("http://{}/V/endpoint/q/foo", world.address).as_str())
        );
    }
}

#[tokio::test]
async fn lines_7_to_13_subscribing() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        let post = |body: String| world.boss(Ask::new("POST", "/subscribe/q/foo").form(&body));
        // 7
        let path = format!("/seven-{compat}");
        let reply = post(form(&subscriber, &path, "foo", "&hub.verify=sync&hub.lease_seconds=60000")).await;
        assert_eq!(reply.said(), (204, String::new()));
        let asked = subscriber.of(&Method::GET, &path);
        let [asked] = &asked[..] else { panic!("{asked:?}") };
        for (name, value) in [("hub.mode", "subscribe"), ("hub.topic", "foo"), ("hub.lease_seconds", "60000")]
        {
            assert_eq!(asked.parameter(name).as_deref(), Some(value), "{asked:?}");
        }
        assert!(asked.parameter("hub.challenge").is_some());
        // 8
        let reply = post(form(&subscriber, "/refuses", "foo", "&hub.verify=sync")).await;
        assert_eq!(reply.said(), (400, "Request verification failed: {request_status,404}".to_owned()));
        let reply = post(form(&subscriber, "/wrong", "foo", "&hub.verify=sync")).await;
        assert_eq!(reply.said(), (400, "Request verification failed: challenge_mismatch".to_owned()));
        // 9
        let path = format!("/nine-{compat}");
        let reply = post(form(&subscriber, &path, "foo", "")).await;
        if compat {
            assert_eq!(reply.said(), (400, "Missing required parameter".to_owned()));
            assert!(subscriber.of(&Method::GET, &path).is_empty());
        } else {
            assert_eq!(reply.status, 202);
            subscriber.hears(Method::GET, &path, 1).await;
        }
        // 10
        let path = format!("/ten-{compat}");
        let reply = post(form(&subscriber, &path, "foo", "&hub.verify=sync&hub.verify=async")).await;
        assert_eq!(reply.status, 204);
        assert_eq!(subscriber.of(&Method::GET, &path).len(), 1);
        let path = format!("/ten-later-{compat}");
        let reply = post(form(&subscriber, &path, "foo", "&hub.verify=weird,async")).await;
        assert_eq!(reply.said(), (202, String::new()));
        subscriber.hears(Method::GET, &path, 1).await;
        // 11
        let ask = Ask::new("POST", "/subscribe/q/none");
        let reply = world.boss(ask.form(&form(&subscriber, "/eleven", "foo", "&hub.verify=sync"))).await;
        assert_eq!(reply.said(), (404, "queue or exchange not found".to_owned()));
        assert!(subscriber.of(&Method::GET, "/eleven").is_empty());
        // What is missing is said after what is not there.
        let reply = world.boss(Ask::new("POST", "/subscribe/q/none").form("hub.mode=subscribe")).await;
        assert_eq!(reply.status, 404);
        // 12
        assert_eq!(post("hub.mode=banana".to_owned()).await.said(), (400, "Invalid operation".to_owned()));
        // 13
        let path = format!("/thirteen-{compat}?a=1&b=2");
        let body = json!({"hub": {"callback": subscriber.url(&path), "topic": "f&o+o", "mode": "subscribe", "verify": "sync"}});
        let reply = world.boss(Ask::new("POST", "/subscribe/q/foo").json(&body)).await;
        assert_eq!(reply.said(), (204, String::new()));
        let asked = subscriber.of(&Method::GET, &format!("/thirteen-{compat}"));
        assert_eq!(asked[0].parameter("hub.topic").as_deref(), Some("f&o+o"));
        assert!(asked[0].query.starts_with("a=1&b=2&"), "the callback's own query stays");
        let junk = Ask::new("POST", "/subscribe/q/foo").body("application/json", "{junk");
        assert_eq!(world.boss(junk).await.said(), (400, "invalid json".to_owned()));
        // A charset is no other media type.
        let charset = "application/x-www-form-urlencoded; charset=UTF-8";
        let path = format!("/charset-{compat}");
        let body = form(&subscriber, &path, "foo", "&hub.verify=sync");
        let reply = world.boss(Ask::new("POST", "/subscribe/q/foo").body(charset, body)).await;
        assert_eq!(reply.status, 204);
        let other = Ask::new("POST", "/subscribe/q/foo").body("text/plain", "x");
        let text = "Bad content-type; expected application/x-www-form-urlencoded";
        assert_eq!(world.boss(other).await.said(), (400, text.to_owned()));
        // Parameters in the query, and the answer where an `ha_mode` is asked for.
        let query = form(&subscriber, &format!("/query-{compat}"), "foo", "&hub.verify=sync&hub.ha_mode=all");
        let reply = world.boss(Ask::new("POST", &format!("/subscribe/q/foo?{query}"))).await;
        assert_eq!(reply.status, 201);
        assert_eq!(reply.json(), json!({"consumers": [{"node": "warren", "status": "ok"}]}));
        let contact = form(&subscriber, "/contact", "foo", "&hub.verify=sync&hub.email=a%40b");
        assert_eq!(post(contact).await.said(), (400, "app_name required to create a contact".to_owned()));
    }
}

#[tokio::test]
async fn lines_14_and_15_publishing() {
    for compat in [true, false] {
        let world = World::with(compat, |settings| {
            settings.set_correlation_id = Some("x-correlation-id".to_owned());
            settings.set_message_id = Some("x-message-id".to_owned());
        })
        .await;
        world.bound("fx", "q").await;
        // 14
        let ask = Ask::new("POST", "/endpoint/x/fx?hub.topic=blue")
            .header("x-correlation-id", "c-1")
            .body("text/x-odd; a=b", [0, 255, 13, 10]);
        let reply = world.boss(ask).await;
        assert_eq!(reply.said(), (202, String::new()));
        assert_eq!(reply.header("x-correlation-id"), Some("c-1"));
        let id = reply.header("x-message-id").unwrap().to_owned();
        assert!(id.starts_with("rabbithub_msgid-") && id.len() == 38, "{id}");
        // 15
        let ask = Ask::new("POST", "/endpoint/x/fx?hub.topic=blue&hub.persistmsg=1")
            .header("x-rabbithub-msg_header", "key1 = A,key2 = B")
            .body("", "x");
        assert_eq!(world.boss(ask).await.status, 202);
        let messages = world.estate.host("/").queues.messages("q");
        let [first, second] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(&first.body[..], [0, 255, 13, 10]);
        assert_eq!(first.properties.content_type.as_deref(), Some("text/x-odd; a=b"));
        assert_eq!(first.properties.correlation_id.as_deref(), Some("c-1"));
        assert_eq!(first.properties.message_id, Some(id));
        assert_eq!(first.properties.persistent, !compat, "RabbitHub's were transient unless asked");
        assert!(second.properties.persistent);
        assert_eq!(second.properties.headers.get("key2"), Some(&HeaderValue::Text("B".to_owned())));
        // To a queue: broken in RabbitHub at its last version.
        assert_eq!(world.boss(Ask::new("POST", "/endpoint/q/q?hub.topic=t").body("", "y")).await.status, 202);
        assert_eq!(world.estate.host("/").queues.messages("q").len(), 3);
        // Chunked.
        let chunked = "POST /endpoint/x/fx HTTP/1.1\r\nhost: h\r\nauthorization: Basic Ym9zczpzZWNyZXQ=\r\nconnection: close\r\n\
            transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answered = super::client::raw(world.address, chunked.as_bytes(), false).await;
        assert!(answered.starts_with(b"HTTP/1.1 202"), "{answered:?}");
        assert_eq!(&world.estate.host("/").queues.messages("q")[3].body[..], b"abcde");
        // Nobody takes it: said to be there in compatibility mode, with a mark.
        world.estate.host("/").declare_exchange("lonely", "fanout");
        let reply = world.boss(Ask::new("POST", "/endpoint/x/lonely")).await;
        assert_eq!(reply.status, if compat { 202 } else { 422 });
        assert_eq!(reply.header("warren-unroutable"), compat.then_some("true"));
        // A missing exchange, told in two ways.
        let ask = Ask::new("POST", "/endpoint/x/none").header("x-rabbithub-msg_header", "a = 1");
        assert_eq!(world.boss(ask).await.text(), if compat { "Not found." } else { "exchange not found" });
    }
}

#[tokio::test]
async fn lines_16_to_19_unsubscribing_and_listing() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        world.estate.host("V").queues.declare("q2");
        let subscribed = |target: &'static str, body: String| {
            let ask = Ask::new("POST", target).form(&body);
            async { world.boss(ask).await.said() }
        };
        let body = form(&subscriber, "/sixteen", "foo", "&hub.verify=sync");
        assert_eq!(subscribed("/subscribe/q/foo", body.clone()).await.0, 204);
        let soon = form(&subscriber, "/soon", "foo", "&hub.verify=sync&hub.lease_seconds=3600");
        assert_eq!(subscribed("/subscribe/q/foo", soon).await.0, 204);
        let other =
            form(&subscriber, "/other", "t%2Ba", "&hub.verify=sync&hub.basic_auth=dTpw&hub.app_name=app");
        assert_eq!(subscribed("/V/subscribe/q/q2", other).await.0, 204);
        // 16
        let ends = body.replace("hub.mode=subscribe", "hub.mode=unsubscribe");
        assert_eq!(subscribed("/subscribe/q/foo", ends.clone()).await, (204, String::new()));
        let modes: Vec<_> = subscriber
            .of(&Method::GET, "/sixteen")
            .iter()
            .map(|heard| heard.parameter("hub.mode").unwrap())
            .collect();
        assert_eq!(modes[modes.len() - 2..], ["subscribe", "unsubscribe"]);
        let unknown = ends.replace("sixteen", "unknown");
        assert_eq!(subscribed("/subscribe/q/foo", unknown).await, (404, String::new()));
        // 17
        let list = world.boss(Ask::new("GET", "/subscriptions")).await;
        assert_eq!((list.status, list.header("content-type")), (200, Some("application/json")));
        let list = list.json();
        let entries = list["subscriptions"].as_array().unwrap();
        let of = |path: &str| entries.iter().find(|entry| entry["callback"] == subscriber.url(path)).unwrap();
        assert_eq!((entries.len(), &of("/sixteen")["status"]), (3, &json!("inactive")));
        let other = of("/other");
        assert_eq!(other["outbound_auth"], json!({"auth_type": "basic_auth", "auth_config": "***"}));
        assert_eq!((&other["contact"]["app_name"], &other["topic"]), (&json!("app"), &json!("t+a")));
        let revealed = world.boss(Ask::new("GET", "/subscriptions?reveal=true")).await.text();
        assert!(revealed.contains("dTpw"), "{revealed}");
        // 18
        let soon = world.boss(Ask::new("GET", "/subscriptions?hub.expires=1")).await.json();
        let entries = soon["subscriptions"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[0]["callback"]), (1, &json!(subscriber.url("/soon"))));
        assert_eq!(world.said("GET", "/subscriptions?hub.expires=soon").await.0, 400);
        assert_eq!(world.said("GET", "/subscriptions?anything=else").await.0, 200);
        // 19
        let callback = escaped(&subscriber.url("/other"));
        let one = format!("/V/subscriptions/q/q2?hub.callback={callback}&hub.topic=t%2Ba");
        let one = world.boss(Ask::new("GET", &one)).await.json();
        assert_eq!(one["subscriptions"].as_array().unwrap().len(), 1);
        assert_eq!(one["subscriptions"][0]["vhost"], "V");
        let (status, text) = world.said("GET", "/V/subscriptions/q/q2?hub.topic=t").await;
        assert_eq!((status, text.as_str()), (400, "Missing required parameter"));
        let none = format!("/subscriptions/q/q2?hub.callback={callback}&hub.topic=t");
        assert_eq!(world.said("GET", &none).await.0, 404);
        assert_eq!(world.boss(Ask::new("GET", "/subscriptions/errors")).await.json(), json!({"errors": []}));
    }
}

#[tokio::test]
async fn line_20_batches() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        let entry = |path: &str, status: &str| {
            json!({"vhost": "/", "resource_type": "queue", "resource_name": "foo", "topic": "t", "status": status,
                "callback": subscriber.url(path), "lease_seconds": 60, "max_tps": 3})
        };
        let (off, on) = (format!("/off-{compat}"), format!("/on-{compat}"));
        let mut gone = entry("/gone", "active");
        gone["resource_name"] = json!("none");
        let batch = json!({"subscriptions": [
            entry(&off, "inactive"), entry(&on, "active"), entry("/refuses", "active"), gone, {"vhost": "/"},
        ]});
        let reply = world.boss(Ask::new("POST", "/subscriptions").json(&batch)).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        let results = reply.json();
        let results = results["rabbithub_batch_results"].as_array().unwrap();
        let states: Vec<_> = results
            .iter()
            .map(|result| result["status"]["consumers"][0]["status"].as_str().unwrap())
            .collect();
        let expected = [
            "ok",
            "ok",
            "{error,{request_status,404}}",
            "{error,not_found}",
            "{error,resource_type is missing}",
        ];
        assert_eq!(states, expected);
        assert!(results[1]["lease_expiry_time_microsec"].as_i64().unwrap() > 0);
        assert_eq!(results[2]["lease_expiry_time_microsec"], 0);
        assert_eq!(subscriber.of(&Method::GET, &off).len(), 0);
        assert_eq!(subscriber.of(&Method::GET, &on).len(), 1);
        let all = world.hub.all();
        assert_eq!(all.len(), 2);
        assert!(all.iter().any(|one| one.state == SubscriptionState::Active && one.max_tps == 3));
        let junk = world.boss(Ask::new("POST", "/subscriptions").body("", "junk")).await;
        assert_eq!(junk.said(), (400, "invalid json".to_owned()));
    }
}

#[tokio::test]
async fn line_21_removing() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.estate.host("V").queues.declare("q1");
        let body = form(&subscriber, &format!("/removed-{compat}"), "t", "&hub.verify=sync");
        assert_eq!(world.boss(Ask::new("POST", "/V/subscribe/q/q1").form(&body)).await.status, 204);
        let target = format!(
            "/V/subscribe/q/q1?hub.callback={}&hub.topic=t",
            escaped(&subscriber.url(&format!("/removed-{compat}")))
        );
        let reply = world.boss(Ask::new("DELETE", &target)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        assert_eq!(reply.json(), json!({"consumers": [{"node": "warren", "status": "ok"}]}));
        let (status, text) = world.said("DELETE", &target).await;
        let expected = if compat { 400 } else { 404 };
        assert_eq!((status, text.as_str()), (expected, "Subscription not found please validate parameters"));
        assert_eq!(world.said("DELETE", "/V/subscribe/q/q1?hub.topic=t").await.0, 400);
        assert_eq!(subscriber.of(&Method::GET, &format!("/removed-{compat}")).len(), 1, "not asked again");
    }
}

#[tokio::test]
async fn line_22_tokens_and_the_shortcut() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        world.estate.host("/").declare_exchange("fx", "topic");
        let token = async |use_: &str| {
            let target =
                format!("/endpoint/q/foo?hub.mode=generate_token&hub.intended_use={use_}&rabbithub.data=d");
            let reply = world.boss(Ask::new("GET", &target)).await;
            assert_eq!(reply.header("content-type"), Some("application/x-www-form-urlencoded"));
            reply.text().strip_prefix("hub.verify_token=").unwrap().to_owned()
        };
        let subscribe = token("subscribe").await;
        let check = |target: &str, token: &str| {
            let ask = Ask::new("GET", &format!("{target}&hub.verify_token={token}&hub.challenge=c"));
            async { world.send(ask).await.said() }
        };
        assert_eq!(check("/endpoint/q/foo?hub.mode=subscribe", &subscribe).await, (200, "c".to_owned()));
        let other = "Intended use or resource does not match actual use or resource.";
        assert_eq!(check("/endpoint/q/foo?hub.mode=unsubscribe", &subscribe).await, (400, other.to_owned()));
        assert_eq!(check("/endpoint/q/bar?hub.mode=subscribe", &subscribe).await, (400, other.to_owned()));
        let bad = check("/endpoint/q/foo?hub.mode=subscribe", "nonsense").await;
        assert_eq!(bad, (400, "Bad hub.verify_token".to_owned()));
        assert_eq!(world.said("GET", "/endpoint/q/foo?hub.mode=generate_token").await.0, 400);
        let missing = "/endpoint/q/none?hub.mode=generate_token&hub.intended_use=subscribe";
        assert_eq!(world.said("GET", missing).await.0, 404);
        // The shortcut: a queue of our own, without a callback.
        let ask = |mode: &str, exchange: &str, token: &str| {
            let body = format!(
                "hub.mode={mode}&hub.topic=a.%23&hub.callback=x&hub.verify=sync&hub.verify_token={token}"
            );
            Ask::new("POST", &format!("/subscribe/x/{exchange}")).form(&body)
        };
        assert_eq!(
            world.boss(ask("unsubscribe", "fx", &subscribe)).await.text(),
            "Shortcut token has wrong hub.mode"
        );
        assert_eq!(world.boss(ask("subscribe", "none", &subscribe)).await.said(), (404, String::new()));
        assert_eq!(world.boss(ask("subscribe", "fx", &subscribe)).await.said(), (204, String::new()));
        assert_eq!(
            world.boss(Ask::new("POST", "/endpoint/x/fx?hub.topic=a.b").body("", "x")).await.status,
            202
        );
        assert_eq!(world.estate.host("/").queues.messages("foo").len(), 1);
        let ends = token("unsubscribe").await;
        assert_eq!(world.boss(ask("unsubscribe", "fx", &ends)).await.said(), (204, String::new()));
        assert!(world.estate.host("/").bindings().is_empty());
    }
}

#[tokio::test]
async fn line_23_administration() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        for (method, target) in [
            ("GET", "/subscriptions"),
            ("POST", "/subscriptions"),
            ("GET", "/subscriptions/errors"),
            ("GET", "/subscriptions/q/foo?hub.callback=c&hub.topic=t"),
        ] {
            let nobody = world.send(Ask::new(method, target)).await;
            assert_eq!(
                (nobody.status, nobody.text().as_str()),
                (401, "Authentication required."),
                "{target}"
            );
            assert!(nobody.header("www-authenticate").unwrap().starts_with("Basic realm="));
            let wrong = world.send(Ask::new(method, target).login("boss", "wrong")).await;
            assert_eq!(wrong.status, if compat { 403 } else { 401 }, "{target}");
            let half = world.send(Ask::new(method, target).login("half", "secret")).await;
            assert_eq!(half.said(), (403, "Forbidden".to_owned()), "{target}");
        }
    }
}
