//! The real program as a process: run to its end, or watched, signalled and killed while it runs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use warren_testkit::wait::wait_until;

/// A folder with a configuration, to call the program with.
pub struct Program {
    config: PathBuf,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A call with `--json` that is under way. Killed when dropped.
pub struct Running {
    child: Child,
    events: Arc<Mutex<Vec<Event>>>,
    out: Option<JoinHandle<String>>,
    stderr: Arc<Mutex<String>>,
    err: Option<JoinHandle<()>>,
}

/// A line of `--json`, and when it came.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Instant,
    pub json: Value,
}

impl Program {
    /// Writes the configuration into a folder. A relative path in it is taken from there.
    pub fn configured(folder: &Path, config: &str) -> Program {
        let path = folder.join("warren.yaml");
        std::fs::write(&path, config).unwrap();
        Program { config: path }
    }

    /// The configuration's file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.arg("-c").arg(&self.config).args(arguments);
        command.env("NO_COLOR", "1").env_remove("WARREN_LOG").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it with `--json` to its end, which must be this exit code; its documents.
    pub fn documents(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let ended = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:#?}");
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a sync to its end, which must be this exit code; what it says at its end.
    pub fn sync(&self, name: &str, code: i32) -> Value {
        ended(&self.documents(&["sync", name], code))
    }

    /// The runs on record, oldest first.
    pub fn runs(&self) -> Vec<Value> {
        let mut runs = self.documents(&["runs", "--limit", "100000"], 0);
        runs.reverse();
        runs
    }

    /// Starts it with `--json`.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (stdout, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let heard = events.clone();
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stdout).lines() {
                let line = line.unwrap();
                // The last line of a process that was killed may be cut off.
                if let Ok(json) = serde_json::from_str(&line) {
                    heard.lock().unwrap().push(Event { at: Instant::now(), json });
                }
                text.push_str(&line);
                text.push('\n');
            }
            text
        });
        let stderr: Arc<Mutex<String>> = Arc::default();
        let said = stderr.clone();
        let err = std::thread::spawn(move || {
            for line in BufReader::new(errors).split(b'\n') {
                let mut said = said.lock().unwrap();
                said.push_str(&String::from_utf8_lossy(&line.unwrap()));
                said.push('\n');
            }
        });
        Running { child, events, out: Some(out), stderr, err: Some(err) }
    }
}

/// The last document of a run.
pub fn ended(documents: &[Value]) -> Value {
    let last = documents.last().unwrap();
    assert_eq!(last["event"], "ended", "{documents:#?}");
    last.clone()
}

impl Running {
    /// What it said so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// The first event that fits, if it came.
    pub fn find(&self, fits: impl Fn(&Value) -> bool) -> Option<Event> {
        self.events.lock().unwrap().iter().find(|event| fits(&event.json)).cloned()
    }

    /// Waits until an event came that fits. Panics with what it said when it ends before.
    pub fn wait_for(&mut self, what: &str, deadline: Duration, fits: impl Fn(&Value) -> bool) {
        wait_until(what, deadline, || {
            if self.find(&fits).is_some() {
                return true;
            }
            if self.is_over() {
                let ended = self.end();
                // The events that came with the end may have been read since.
                assert!(self.find(&fits).is_some(), "it ended before {what}: {ended:#?}");
                return true;
            }
            false
        });
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(status.unwrap().success(), "send SIG{name}");
    }

    /// SIGKILL, unless it has ended; how it ended.
    pub fn kill(&mut self) -> Ended {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits for its end, at most so long.
    pub fn end_within(&mut self, deadline: Duration) -> Ended {
        let began = Instant::now();
        while !self.is_over() {
            assert!(began.elapsed() < deadline, "not over after {deadline:?}: {:#?}", self.events());
            warren_testkit::wait::pause("between two looks", Duration::from_millis(20));
        }
        self.end()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let stdout = self.out.take().map(|thread| thread.join().unwrap()).unwrap_or_default();
        if let Some(err) = self.err.take() {
            err.join().unwrap();
        }
        Ended { code, stdout, stderr: self.stderr() }
    }

    /// What the run said at its end.
    pub fn ended(&self) -> Value {
        let events = self.events();
        ended(&events.into_iter().map(|event| event.json).collect::<Vec<_>>())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; a test that failed must not leave it behind.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Added, changed and removed together.
pub fn total(per_op: &Value) -> u64 {
    ["added", "changed", "removed"].iter().map(|op| per_op[op].as_u64().unwrap()).sum()
}
