//! `warren doctor`: of a trigger that runs, of one that nobody runs, and of one that cannot go on.

use serde_json::{Value, json};
use warren_testkit::rabbit::{self, Vhost};
use warren_testkit::wait_until;

use super::served::{SOON, Served};

fn vhost() -> Vhost {
    let vhost = rabbit::vhost();
    vhost.queue("in");
    vhost.queue("out");
    vhost
}

fn served(vhost: &Vhost, keys: &str) -> Served {
    Served::rabbit(vhost, keys).on_a_known_port()
}

pub fn document(served: &Served, code: i32) -> Value {
    served.program.documents(&["doctor"], code).pop().unwrap()
}

pub fn codes(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().unwrap();
    // How full this machine's disk is, is not what these tests are about.
    let codes = findings.iter().map(|finding| finding["code"].as_str().unwrap());
    codes.filter(|code| *code != "disk-nearly-full").collect()
}

/// What a person reads, without what changes from run to run.
fn told(served: &Served) -> String {
    let ended = served.program.run(&["doctor"]);
    let folder = served.program.config().parent().unwrap().display().to_string();
    let text = format!("{}{}", ended.stdout, ended.stderr).replace(&folder, "FOLDER");
    let numbers = [
        (r"process \d+[^\n]*", "PROCESS"),
        (r"[\d.]+ [MG]iB", "SIZE"),
        (r"(\d+(\.\d+)?) ?(ms|s|min|m)( \d+ s)? ago", "TIME ago"),
        (r"due in [^\n,]*", "due in TIME"),
        // The broker may not have counted yet.
        (r"  queue      in: \d+ messages?(, \d+ consumers?)?\n", ""),
        (r"(?m)^(warning|note)\[disk-nearly-full\][\s\S]*?\n\n", ""),
        (r"all is well\n|\n?\d+ warnings? in the configuration\n?", ""),
    ];
    let told = numbers.iter().fold(text, |text, (pattern, by)| {
        regex::Regex::new(pattern).unwrap().replace_all(&text, *by).into_owned()
    });
    format!("{}\n", told.trim_end())
}

#[test]
fn a_trigger_that_runs_is_well() {
    let vhost = vhost();
    let served = served(&vhost, "");
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"good", &json!({"message_id": "m"})));
    vhost.wait_for_depth("out", 1, SOON);
    wait_until("it is on record", SOON, || !served.attempts().is_empty());
    let found = document(&served, 0);
    assert_eq!(codes(&found), [""; 0], "{found:#}");
    let trigger = &found["triggers"][0];
    assert_eq!(
        (&trigger["state"], &trigger["last_status"]),
        (&json!("consuming"), &json!("ok")),
        "{found:#}"
    );
    assert!(found["state"]["bytes"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(
        told(&served),
        "state FOLDER/state: SIZE, SIZE are left on its disk\n\
trigger orders\n\
\x20 runs       consuming, in PROCESS\n\
\x20 last       ok, TIME ago\n"
    );
    drop(serving);
}

/// 1. Nobody runs it, and a message waits in the parking lot. 2. A message that was in hand when the process died.
#[test]
fn a_trigger_that_nobody_runs_is_told_with_what_waits_for_it() {
    let vhost = vhost();
    let served = served(&vhost, "retry: {delays: [1h], mode: parking}");
    let mut serving = served.consume();
    assert!(vhost.publish("", "in", b"again", &json!({"message_id": "a"})));
    serving.wait_for_number("warren_messages_parked{trigger=\"orders\"}", 1.0);
    assert!(vhost.publish("", "in", b"slow", &json!({"message_id": "s"})));
    serving.wait_for_number("warren_messages_in_flight{trigger=\"orders\"}", 1.0);
    serving.running.kill();
    let found = document(&served, 0);
    assert_eq!(codes(&found), ["trigger-not-running", "crash-suspects"], "{found:#}");
    assert_eq!(found["triggers"][0]["parked"], 1); // 1.
    assert_eq!(found["triggers"][0]["in_hand"], 1); // 2.
    assert_eq!(
        told(&served),
        "state FOLDER/state: SIZE, SIZE are left on its disk\n\
trigger orders\n\
\x20 runs       nowhere\n\
\x20 parked     1 message, the oldest came TIME ago, the next is due in TIME\n\
\x20 last       retried, TIME ago\n\
warning[trigger-not-running]: nobody runs trigger `orders`\n\
\x20--> FOLDER/warren.yaml:6:3\n\
\x20 |\n\
6 |   orders:\n\
\x20 |   ^^^^^^\n\
\x20 = said: in the parking lot, and nowhere else: 1 message\n\
\x20 = help: start `warren serve`\n\
\n\
warning[crash-suspects]: the process died with 1 message of trigger `orders` that has not ended since\n\
\x20--> FOLDER/warren.yaml:6:3\n\
\x20 |\n\
6 |   orders:\n\
\x20 |   ^^^^^^\n\
\x20 = help: look for why it died; after three deaths a message is given up as `crashed`\n"
    );
}

#[test]
fn a_trigger_that_waits_for_its_queue_is_told_once_by_check_and_once_by_itself() {
    let vhost = vhost();
    let served = served(&vhost, "");
    let serving = served.consume();
    vhost.delete_queue("in");
    serving.wait_for_state("waiting");
    let found = document(&served, 1);
    assert_eq!(codes(&found), ["no-such-queue", "no-such-queue"], "{found:#}");
    assert_eq!(found["triggers"][0]["state"], "waiting");
}
