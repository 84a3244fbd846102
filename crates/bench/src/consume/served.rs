//! `warren serve` as a process, with one trigger.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::QUEUE;
use crate::program::Program;
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
    program: Program,
}

impl Served {
    pub async fn start(
        program: Option<&Path>,
        rabbit: &str,
        concurrency: u16,
        steps: &Steps,
    ) -> Result<Served, Fault> {
        let steps = match steps {
            Steps::None => "      - map: .\n".to_owned(),
            Steps::Http(url) => format!("      - http: {{url: \"{url}\", body: .body}}\n"),
        };
        let config = format!(
            "brokers:\n  mq: {{type: rabbitmq, url: \"{rabbit}\"}}\nhttp: {{listen: \"127.0.0.1:0\"}}\n\
             state: {{folder: state}}\ntriggers:\n  bench:\n    from: mq\n    queue: {QUEUE}\n    concurrency: {concurrency}\n\
             \x20   dead_letter: drop\n    pipeline:\n{steps}"
        );
        Ok(Served { program: Program::start(program, &config).await? })
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
        let mut stream = TcpStream::connect(self.program.address).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.program.address);
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
        self.program.id().map_or(0.0, crate::figures::cpu_seconds_of)
    }

    pub async fn stop(self) -> Result<(), Fault> {
        self.program.stop().await
    }
}
