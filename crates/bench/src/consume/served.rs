//! `warren serve` as a process, with one trigger.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::QUEUE;
use crate::error_log::ErrorLog;
use crate::sync::Fault;

/// The shortest and the longest pause between two looks at how much is done.
const ASKED_MIN: Duration = Duration::from_millis(2);
const ASKED_MAX: Duration = Duration::from_millis(200);

/// What is done with a message.
pub enum Steps {
    /// It is looked at, and kept as it is.
    None,
    /// It is posted to a URL.
    Http(String),
}

/// Ends with SIGKILL when dropped.
pub struct Served {
    child: Child,
    address: String,
    /// Before the folder, which it is in.
    log: ErrorLog,
    _folder: TempDir,
}

impl Served {
    pub async fn start(
        program: Option<&Path>,
        rabbit: &str,
        concurrency: u16,
        steps: &Steps,
    ) -> Result<Served, Fault> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => beside()?,
        };
        let folder = tempfile::tempdir()?;
        let steps = match steps {
            Steps::None => "      - map: .\n".to_owned(),
            Steps::Http(url) => format!("      - http: {{url: \"{url}\", body: .body}}\n"),
        };
        let config = format!(
            "brokers:\n  mq: {{type: rabbitmq, url: \"{rabbit}\"}}\nhttp: {{listen: \"127.0.0.1:0\"}}\n\
             state: {{folder: state}}\ntriggers:\n  bench:\n    from: mq\n    queue: {QUEUE}\n    concurrency: {concurrency}\n\
             \x20   dead_letter: drop\n    pipeline:\n{steps}"
        );
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, config)?;
        let (log, stderr) = ErrorLog::create(folder.path())?;
        let mut child = Command::new(&program)
            .arg("-c")
            .arg(&path)
            .args(["serve", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("it has no stdout")?).lines();
        loop {
            let line = lines.next_line().await?.ok_or("warren serve ended")?;
            let event: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(address) = event["serving"]["address"].as_str() {
                return Ok(Served { child, address: address.to_owned(), log, _folder: folder });
            }
        }
    }

    /// Waits until so many messages are worked on; how many there are then.
    pub async fn worked_on(&self, messages: u64) -> Result<u64, Fault> {
        let mut before = (0, tokio::time::Instant::now());
        let mut pause = ASKED_MIN;
        loop {
            let done = self.ok().await?;
            if done >= messages {
                return Ok(done);
            }
            if done > before.0 {
                let took = before.1.elapsed();
                // Most of the time that is left: each question costs the program something too.
                let left = took.mul_f64((messages - done) as f64 / (done - before.0) as f64);
                pause = (left / 2).clamp(ASKED_MIN, ASKED_MAX);
                before = (done, tokio::time::Instant::now());
            } else if before.1.elapsed() > Duration::from_secs(60) {
                return Err(format!(
                    "warren has worked on {done} messages of {messages}, and on none for a minute"
                )
                .into());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Messages that ended well.
    async fn ok(&self) -> Result<u64, Fault> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line =
            text.lines().find(|line| line.starts_with("warren_attempts_total") && line.contains("\"ok\""));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(number.unwrap_or(0.0) as u64)
    }

    /// Seconds of processor time it has used.
    pub fn cpu_seconds(&self) -> f64 {
        self.child.id().map_or(0.0, crate::figures::cpu_seconds_of)
    }

    pub async fn stop(mut self) -> Result<(), Fault> {
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = self.child.wait().await?;
        if !status.success() {
            return Err(format!("warren serve ended with {status}").into());
        }
        self.log.discard();
        Ok(())
    }
}

/// The program as it was built with this one.
fn beside() -> Result<PathBuf, Fault> {
    let path = std::env::current_exe()?.with_file_name("warren");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is not there: build it, or name it with --warren", path.display()).into())
    }
}
