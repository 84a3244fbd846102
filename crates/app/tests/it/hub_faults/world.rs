//! A hub as a process, a receiver that can be down, and publishers that remember what was accepted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use warren_testkit::wait::{wait_for, wait_until};

use crate::program::{Program, Running};

/// Nothing here takes longer, unless the machine does.
pub const SOON: Duration = Duration::from_secs(120);

/// A configuration with a hub.
pub struct World {
    program: Program,
    /// Taken away with it.
    _folder: TempDir,
}

/// A hub that runs.
pub struct Hub {
    pub running: Running,
    pub address: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl World {
    /// A hub in front of a broker of this configuration, with these further keys (one a line).
    pub fn new(broker: &str, keys: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<String> = keys.lines().map(|line| format!("  {line}\n")).collect();
        let keys = keys.concat();
        let config = format!(
            "http: {{listen: \"127.0.0.1:0\"}}\nstate: {{folder: state, shutdown_grace: 5s}}\nbrokers:\n  mq: {broker}\n\
             hub:\n  broker: mq\n  allow_callbacks: [127.0.0.1]\n{keys}"
        );
        World { program: Program::configured(folder.path(), &config), _folder: folder }
    }

    /// In front of the embedded broker, which has these queues.
    pub fn embedded(keys: &str) -> World {
        let hash = warren_connectors::kit::users::hash_password("guest").unwrap();
        let users = format!(
            "users:\n  guest:\n    password_hash: \"{hash}\"\n    tags: [administrator, rabbithub_admin]\n    \
             permissions: {{\"/\": {{configure: .*, write: .*, read: .*}}}}\n{keys}"
        );
        World::new("{type: embedded}", &users)
    }

    /// In front of RabbitMQ. The users are the hub's own, so that `guest` may export.
    pub fn rabbit(url: &str, vhost: &str, keys: &str) -> World {
        let hash = warren_connectors::kit::users::hash_password("guest").unwrap();
        let users = format!(
            "users:\n  guest:\n    password_hash: \"{hash}\"\n    tags: [administrator, rabbithub_admin]\n    \
             permissions: {{\"{vhost}\": {{configure: .*, write: .*, read: .*}}}}\n{keys}"
        );
        World::new(&format!("{{type: rabbitmq, url: \"{url}\"}}"), &users)
    }

    /// What `warren check` says; it must end with this exit code.
    pub fn check(&self, code: i32) -> Value {
        self.program.documents(&["check"], code).pop().unwrap()
    }

    /// Starts it, and waits until its routes answer.
    pub fn start(&self) -> Hub {
        let mut running = self.program.start(&["serve"]);
        running.wait_for("it serves", SOON, |event| event["serving"]["address"].is_string());
        let serving = running.find(|event| event["serving"]["address"].is_string()).unwrap();
        let address = serving.json["serving"]["address"].as_str().unwrap().to_owned();
        let hub = Hub { running, address };
        wait_until("the hub answers", SOON, || {
            hub.readiness().is_some_and(|ready| ready["hub"]["state"] == "running")
        });
        hub
    }
}

impl Hub {
    /// One request; `None`: no answer came.
    pub fn ask(&self, method: &str, path: &str, content_type: &str, body: &str) -> Option<Answer> {
        ask(&self.address, method, path, content_type, body)
    }

    /// Subscribes a callback to `q/NAME` or `x/NAME` of a vhost, and says what was answered.
    pub fn subscribe(&self, vhost: &str, resource: &str, topic: &str, callback: &str) -> Option<u16> {
        subscribe(&self.address, vhost, resource, topic, callback)
    }

    /// Whether it is ready, and why not.
    pub fn readiness(&self) -> Option<Value> {
        serde_json::from_str(&self.ask("GET", "/readyz", "text/plain", "")?.body).ok()
    }

    /// All subscriptions: callback and topic, with their status.
    pub fn subscriptions(&self) -> BTreeMap<(String, String), String> {
        let answer = wait_for("the export", SOON, || self.ask("GET", "/subscriptions", "text/plain", ""));
        let all: Value = serde_json::from_str(&answer.body).unwrap();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let entries = all["subscriptions"].as_array().unwrap().iter();
        entries
            .map(|entry| ((text(entry, "callback"), text(entry, "topic")), text(entry, "status")))
            .collect()
    }
}

/// As [`Hub::subscribe`], of a hub that may be killed meanwhile.
pub fn subscribe(address: &str, vhost: &str, resource: &str, topic: &str, callback: &str) -> Option<u16> {
    let body = format!(
        "hub.mode=subscribe&hub.verify=sync&hub.topic={topic}&hub.callback={}",
        callback.replace(':', "%3A").replace('/', "%2F")
    );
    let path = format!("/{vhost}/subscribe/{resource}");
    ask(address, "POST", &path, "application/x-www-form-urlencoded", &body).map(|answer| answer.status)
}

fn ask(address: &str, method: &str, path: &str, content_type: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let login = STANDARD.encode("guest:guest");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {login}\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A process that is killed may reset the connection in the middle.
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer { status: head.get(9..12)?.parse().unwrap(), body: body.to_owned() })
}

/// What was received, by body, and how often.
pub type Received = Arc<Mutex<BTreeMap<String, u32>>>;

/// Takes messages, and echoes challenges.
pub struct Receiver {
    address: SocketAddr,
    pub received: Received,
    stop: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::at("127.0.0.1:0".parse().unwrap(), Received::default())
    }

    fn at(address: SocketAddr, received: Received) -> Receiver {
        let listener = wait_for("the port is free again", SOON, || TcpListener::bind(address).ok());
        let address = listener.local_addr().unwrap();
        let (stop, connections) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (told, open, heard) = (stop.clone(), connections.clone(), received.clone());
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let heard = heard.clone();
                std::thread::spawn(move || serve(stream, &heard));
            }
        });
        Receiver { address, received, stop, connections, accepting: Some(accepting) }
    }

    /// A callback of it.
    pub fn callback(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many different messages came.
    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Down: connections are cut, and refused.
    pub fn down(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok(); // so that accepting sees it
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.shutdown(Shutdown::Both).ok(); // it may be gone
        }
    }

    /// Up again, where it was.
    pub fn up(&mut self) {
        *self = Receiver::at(self.address, self.received.clone());
    }

    /// Waits until all of these came.
    pub fn wait_for_all(&self, bodies: &[String]) {
        self.wait_for_all_within(bodies, SOON);
    }

    /// Waits until all of these came, for so long.
    pub fn wait_for_all_within(&self, bodies: &[String], deadline: Duration) {
        let missing = || {
            let received = self.received.lock().unwrap();
            bodies.iter().filter(|body| !received.contains_key(*body)).cloned().collect::<Vec<_>>()
        };
        let began = std::time::Instant::now();
        while !missing().is_empty() {
            let missing = missing();
            assert!(
                began.elapsed() < deadline,
                "{} of {} messages are lost, such as {:?}",
                missing.len(),
                bodies.len(),
                missing.first()
            );
            warren_testkit::wait::pause("between two looks", Duration::from_millis(50));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.down();
    }
}

fn serve(stream: TcpStream, received: &Received) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let challenge = first
            .split_once("hub.challenge=")
            .map(|(_, rest)| rest.split(['&', ' ']).next().unwrap_or_default().to_owned());
        if first.starts_with("POST") {
            let body = String::from_utf8(body).unwrap();
            *received.lock().unwrap().entry(body).or_default() += 1;
        }
        let answer = challenge.unwrap_or_default();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Publishers that go on until they are told to stop.
pub struct Publishers {
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Publishers {
    /// So many, to each of these paths in turn. Bodies begin with `name`.
    pub fn start(hub: &Hub, count: usize, name: &str, paths: &[String]) -> Publishers {
        Publishers::paced(hub, count, name, paths, Duration::ZERO)
    }

    /// One, with some ten messages a second.
    pub fn slow(hub: &Hub, name: &str, paths: &[String]) -> Publishers {
        Publishers::paced(hub, 1, name, paths, Duration::from_millis(100))
    }

    fn paced(hub: &Hub, count: usize, name: &str, paths: &[String], pace: Duration) -> Publishers {
        let (stop, accepted) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let threads = (0..count)
            .map(|thread| {
                let (stop, accepted) = (stop.clone(), accepted.clone());
                let (address, name, paths) = (hub.address.clone(), name.to_owned(), paths.to_vec());
                std::thread::spawn(move || {
                    for (number, path) in (0..).zip(paths.iter().cycle()) {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let body = format!("{name} {thread} {number}");
                        match ask(&address, "POST", path, "text/plain", &body) {
                            Some(answer) if answer.status == 202 => {
                                accepted.lock().unwrap().push(body);
                                warren_testkit::wait::pause("the pace", pace);
                            }
                            // Nobody said that it is there.
                            Some(_) | None => {
                                warren_testkit::wait::pause("not to spin", Duration::from_millis(5));
                            }
                        }
                    }
                })
            })
            .collect();
        Publishers { stop, accepted, threads }
    }

    /// How many were accepted so far.
    pub fn count(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// Stops them; what was accepted.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.accepted.lock().unwrap())
    }
}
