//! `warren doctor`: of a trigger that runs, of one that nobody runs, and of one that cannot go on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};
use warren_testkit::rabbit::{self, Vhost};
use warren_testkit::{tls, wait_until};

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

/// With `--listen` the process listens elsewhere than the configuration says, and a second process of the same state waits.
#[test]
fn a_process_is_asked_where_it_listens() {
    let vhost = vhost();
    let served = Served::rabbit(&vhost, "").on_a_known_port();
    let serving = served.start_with(&["--listen", "0.0.0.0:0"]);
    let local = serving.address.replace("0.0.0.0", "127.0.0.1");
    let serving = super::served::Serving { address: local, ..serving };
    serving.wait_for_state("consuming");
    let second = served.start_with(&["--listen", "127.0.0.1:0"]);
    second.wait_for_state("waiting");
    let found = document(&served, 0);
    assert_eq!(codes(&found), [""; 0], "{found:#}");
    assert_eq!(found["triggers"][0]["state"], "consuming", "{found:#}");
    // The one that waits takes over, and is asked from then on.
    drop(serving);
    second.wait_for_state("consuming");
    let found = document(&served, 0);
    assert_eq!(codes(&found), [""; 0], "{found:#}");
    assert_eq!(found["triggers"][0]["state"], "consuming", "{found:#}");
    assert_eq!(second.stop().code, Some(0));
    let recorded = served.program.config().with_file_name("state").join("listening");
    // That of the process that was killed was removed by nobody, and that of the one that ended is gone.
    assert!(std::fs::read_dir(recorded).unwrap().count() <= 1);
    assert_eq!(codes(&document(&served, 0)), ["trigger-not-running"]);
}

#[test]
fn the_address_of_a_process_that_died_is_not_asked() {
    let vhost = vhost();
    let served = Served::rabbit(&vhost, "");
    let mut serving = served.consume();
    serving.running.kill();
    let listener = TcpListener::bind(&serving.address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            let body = r#"{"triggers": {"orders": {"state": "consuming"}}}"#;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let found = document(&served, 0);
    assert_eq!(codes(&found), ["trigger-not-running"], "{found:#}");
    assert_eq!(found["triggers"][0]["state"], Value::Null, "{found:#}");
}

#[test]
fn a_process_that_does_not_answer_is_told() {
    let vhost = vhost();
    let served = Served::rabbit(&vhost, "");
    let serving = served.consume();
    serving.running.signal("STOP");
    let found = document(&served, 0);
    serving.running.signal("CONT");
    assert_eq!(codes(&found), ["process-silent"], "{found:#}");
    let message = found["findings"][0]["message"].as_str().unwrap();
    assert!(message.contains(&format!("does not say at http://{} how it is", serving.address)), "{message}");
    serving.wait_for_state("consuming");
    assert_eq!(codes(&document(&served, 0)), [""; 0]);
}

#[test]
fn a_process_that_serves_https_is_asked() {
    let vhost = vhost();
    let served = Served::rabbit(&vhost, "");
    let config = std::fs::read_to_string(served.program.config()).unwrap();
    let (cert, key) = (tls::server_certificate(), tls::server_key());
    let tls = format!("127.0.0.1:0\", tls: {{cert: \"{}\", key: \"{}\"}}", cert.display(), key.display());
    std::fs::write(served.program.config(), config.replace("127.0.0.1:0\"", &tls)).unwrap();
    let _serving = served.start();
    wait_until("doctor sees that it consumes", SOON, || {
        served.program.documents(&["doctor"], 0)[0]["triggers"][0]["state"] == "consuming"
    });
    assert_eq!(codes(&document(&served, 0)), [""; 0]);
}
