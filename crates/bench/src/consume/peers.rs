//! Consumers written by hand, in `peers/`: their packages are fetched into a temporary folder. Where that cannot be, it is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{QUEUE, Turn};
use crate::sync::Fault;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Those that can run here.
#[derive(Default)]
pub struct Peers {
    ready: Vec<(&'static str, Peer)>,
    missing: Vec<String>,
    /// Goes with them.
    folder: Option<TempDir>,
}

/// How one is called.
pub struct Peer {
    program: PathBuf,
    script: PathBuf,
}

impl Peers {
    /// Fetches what they need.
    pub fn fetch() -> Peers {
        let mut peers = Peers::default();
        let folder = match tempfile::tempdir() {
            Ok(folder) => folder,
            Err(error) => {
                peers.missing.push(format!("no temporary folder: {error}"));
                return peers;
            }
        };
        for (name, ready) in [("node", node(folder.path())), ("python", python(folder.path()))] {
            match ready {
                Ok(peer) => peers.ready.push((name, peer)),
                Err(error) => peers.missing.push(format!("{name}: {error}")),
            }
        }
        peers.folder = Some(folder);
        peers
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Peer)> {
        self.ready.iter().map(|(name, peer)| (*name, peer))
    }

    /// Says which could not run, and why.
    pub fn tell_missing(&self) {
        self.missing.iter().for_each(|why| println!("  not run: {why}"));
    }
}

fn node(folder: &Path) -> Result<Peer, Fault> {
    // A script finds its packages beside itself.
    let script = folder.join("consume.mjs");
    std::fs::copy(Path::new(SCRIPTS).join("consume.mjs"), &script)?;
    done(
        Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "amqplib@0.10", "undici@6"])
            .current_dir(folder),
    )?;
    Ok(Peer { program: "node".into(), script })
}

fn python(folder: &Path) -> Result<Peer, Fault> {
    let place = folder.join("venv");
    done(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    done(Command::new(place.join("bin/pip")).args(["install", "--quiet", "aio-pika", "aiohttp"]))?;
    Ok(Peer { program: place.join("bin/python"), script: Path::new(SCRIPTS).join("consume.py") })
}

fn done(command: &mut Command) -> Result<(), Fault> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("it failed without a word").to_owned().into())
}

impl Peer {
    /// Consumes so many messages of the queue, and posts each to a target where there is one.
    pub async fn run(
        &self,
        rabbit: &str,
        messages: u64,
        prefetch: u16,
        target: Option<&str>,
    ) -> Result<Turn, Fault> {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(&self.script).args([rabbit, QUEUE]).args([messages.to_string(), prefetch.to_string()]);
        let output = command.args(target).stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let number = |name: &str| told[name].as_f64().ok_or("a peer says no number");
        Ok(Turn { took: Duration::from_secs_f64(number("seconds")?), cpu: number("cpu")? })
    }
}
