//! Commands, for `exec` steps.
//!
//! A command runs in a process group of its own, without a shell, with stdin, stdout and stderr as pipes and a short
//! environment. When it has ended, or when nobody waits for it any more, the whole group is killed: nothing that a command
//! started outlives it, unless it left the group on purpose (`setsid`).

use std::env;
use std::io;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{CommandEnd, CommandLine};
use warren_engine::ports::CommandRunner;

/// Variables that every command gets, where they are set. Others may be secrets.
const ENVIRONMENT: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// The beginning of stderr that is kept; the rest is read and thrown away.
const STDERR_BYTES_MAX: usize = 64 << 10;

/// Makes a runner of commands.
pub fn runner() -> Arc<dyn CommandRunner> {
    Arc::new(Runner)
}

struct Runner;

#[async_trait]
impl CommandRunner for Runner {
    async fn run(&self, command: &CommandLine) -> Result<CommandEnd, Failure> {
        let what = format!("run `{}`", command.program);
        let mut made = Command::new(&command.program);
        made.args(&command.arguments)
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, env::var_os(name)?))))
            .envs(command.environment.iter().map(|(name, value)| (name, &value.0)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = made.spawn().map_err(|error| not_started(error, &what))?;
        let group = Group::of(child.id());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let waiting = async {
            let status = child.wait().await;
            // What it left behind would hold the pipes open.
            drop(group);
            status
        };
        let (status, (), stdout, stderr) = tokio::join!(
            waiting,
            write(stdin, &command.stdin),
            read(stdout, command.output_bytes_max),
            read(stderr, STDERR_BYTES_MAX),
        );
        let failed = |kind| Failure::new(kind, codes::COMMAND_FAILED, &what);
        let status = status.map_err(|error| failed(FailureKind::Internal).because(error))?;
        let (stdout, whole) = stdout.map_err(|error| failed(FailureKind::Disconnected).because(error))?;
        if !whole {
            return Err(Failure::new(FailureKind::Invalid, codes::ANSWER_TOO_LARGE, &what)
                .detail(format!("it wrote more than {} bytes", command.output_bytes_max))
                .remedy("raise `max_output`, or let it write less"));
        }
        let (stderr, _) = stderr.map_err(|error| failed(FailureKind::Disconnected).because(error))?;
        match status.code() {
            Some(code) => Ok(CommandEnd { code, stdout: stdout.into(), stderr: stderr.into() }),
            None => Err(failed(FailureKind::Disconnected).detail(format!("a signal ended it: {status}"))),
        }
    }
}

fn not_started(error: io::Error, what: &str) -> Failure {
    if error.kind() == io::ErrorKind::ArgumentListTooLong {
        return Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
            .detail("the arguments are longer than the system passes to a command")
            .remedy("pass long values by `stdin`")
            .because(error);
    }
    let (kind, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (FailureKind::NotFound, "check the path, or that it is in `PATH`"),
        io::ErrorKind::PermissionDenied => (FailureKind::Refused, "let Warren's user execute it"),
        _ => (FailureKind::Throttled, "the system could not start it; look at its limits"),
    };
    Failure::new(kind, codes::COMMAND_FAILED, what)
        .detail(format!("it could not be started: {error}"))
        .remedy(remedy)
        .because(error)
}

/// Gives a command its input. One that does not read it all is within its rights.
async fn write(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        stdin.write_all(input).await.ok();
        stdin.shutdown().await.ok();
    }
}

/// Reads to the end and keeps the beginning; whether that was all.
async fn read(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> io::Result<(Vec<u8>, bool)> {
    let Some(mut pipe) = pipe else { return Ok((Vec::new(), true)) };
    let mut kept = Vec::new();
    let mut whole = true;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            return Ok((kept, whole));
        }
        let room = bytes_max - kept.len();
        whole &= count <= room;
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Group {
        let id = leader.and_then(|id| i32::try_from(id).ok());
        // Only a group of our own making: 0 and 1 would mean others.
        Group(id.filter(|id| *id > 1).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // It may be empty already.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}
