//! What stands in the log when everything is logged that can be.

use super::world::{Receiver, SOON, World};

/// A secret of Standard Webhooks.
const SECRET: &str = "whsec_czNjcmV0LW9mLXRoZS1ob29r";

#[test]
fn hole_3_no_secret_is_logged() {
    let world = World::embedded(
        "log_http_post_request: true\nlog_published_messages: true\nlog_message_body: true\n\
         log_http_headers: [authorization, cookie, user-agent]",
    );
    let receiver = Receiver::start();
    let mut hub = world.start();
    let callback = receiver.callback("hook%3Ftoken%3Dt0ken");
    let (signings, bodies) = (["sha256", "standard"], ["body a".to_owned(), "body b".to_owned()]);
    for signing in signings {
        assert_eq!(hub.ask("PUT", &format!("/endpoint/q/{signing}"), "text/plain", "").unwrap().status, 201);
        let secret = if signing == "standard" { SECRET } else { "s3cret-of-the-hook" };
        let form = format!(
            "hub.mode=subscribe&hub.verify=sync&hub.topic={signing}&hub.callback={callback}&hub.secret={secret}\
             &hub.basic_auth=dTpwYXNzd29yZA&hub.signing={signing}"
        );
        let path = format!("/subscribe/q/{signing}");
        let answer = hub.ask("POST", &path, "application/x-www-form-urlencoded", &form).unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    for (signing, body) in signings.iter().zip(&bodies) {
        assert_eq!(
            hub.ask("POST", &format!("/endpoint/q/{signing}"), "text/plain", body).unwrap().status,
            202
        );
    }
    receiver.wait_for_all(&bodies);
    hub.running.signal("TERM");
    let ended = hub.running.end_within(SOON);
    let log = format!("{}{}", ended.stdout, ended.stderr);
    for logged in ["delivery", "body b", "***", "/hook?…", "x-hub-signature: ***", "webhook-signature: ***"]
    {
        assert!(log.contains(logged), "{logged} is logged: {log}");
    }
    // Also not the login of whoever published.
    for secret in ["s3cret", SECRET, "dTpwYXNzd29yZA", "t0ken", "Z3Vlc3Q6Z3Vlc3Q", "sha256="] {
        assert!(!log.contains(secret), "{secret} is logged: {log}");
    }
}
