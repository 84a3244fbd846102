//! `warren serve` as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error_log::ErrorLog;
use crate::sync::Fault;

/// Ends with SIGKILL when dropped. Its state is in a temporary folder.
pub struct Program {
    process: Child,
    pub address: SocketAddr,
    /// Before the folder, which it is in.
    log: ErrorLog,
    _folder: TempDir,
}

impl Program {
    /// Starts it with a configuration, which listens on some address. `program` is by default `warren` next to this program.
    pub async fn start(program: Option<&Path>, config: &str) -> Result<Program, Fault> {
        let beside = || std::env::current_exe().map(|own| own.with_file_name("warren"));
        let program = program.map(Path::to_owned).map_or_else(beside, Ok)?;
        if !program.exists() {
            return Err(
                format!("{} is not there: build it, or name it with --warren", program.display()).into()
            );
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, config)?;
        let (log, stderr) = ErrorLog::create(folder.path())?;
        let mut process = Command::new(&program)
            .arg("-c")
            .arg(&path)
            .args(["serve", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("it has no stdout")?).lines();
        loop {
            let line = lines.next_line().await?.ok_or("warren serve ended")?;
            let event: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(address) = event["serving"]["address"].as_str() {
                return Ok(Program { process, address: address.parse()?, log, _folder: folder });
            }
        }
    }

    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends it in good order.
    pub async fn stop(mut self) -> Result<(), Fault> {
        if let Some(pid) = self.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = self.process.wait().await?;
        if !status.success() {
            return Err(format!("warren serve ended with {status}").into());
        }
        self.log.discard();
        Ok(())
    }

    /// Ends it at once.
    pub async fn kill(mut self) -> Result<(), Fault> {
        self.process.kill().await?;
        self.log.discard();
        Ok(())
    }
}
