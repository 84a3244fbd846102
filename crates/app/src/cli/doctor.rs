//! `warren doctor`: what `check` finds, and how what runs is: triggers, queues, the parking lot, the state folder. Changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use warren_connectors::kit::tls::pinned_client_config;
use warren_engine::codes::{self, Code};
use warren_engine::failure::Failure;
use warren_engine::finding::{Finding, Severity};
use warren_engine::ports::Clock;
use warren_store::in_flight::{self, Looked};
use warren_store::listening;
use warren_store::messages::{MessageFilter, find};
use warren_store::parking::{self, Waiting};
use warren_store::state::{State, SystemClock};

use crate::assemble;
use crate::cli::{Context, Stop, check};
use crate::exit::Exit;
use crate::report::figures::{counted, span};
use crate::report::{Style, line, note};
use warren_config::Project;

/// A process on this machine answers at once, or hangs.
const ASKED: Duration = Duration::from_secs(2);
/// With less than this the disk of the state folder is nearly full: a record is kept up to 1 GiB unless it is told otherwise.
const ROOM_BYTES_MIN: u64 = 1 << 30;

/// Look at all that `check` does and at what runs: triggers, their queues, what waits, the state folder. Nothing changes.
///
/// Exit codes: 0 nothing is wrong; 1 something is, outside or in what runs; 2 the configuration is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// How a trigger is.
struct Patient {
    name: String,
    runs_in: Option<String>,
    /// What its process says of it, where that could be asked.
    said: Option<Value>,
    /// Where that was asked.
    asked_at: String,
    queue: String,
    messages: Option<u64>,
    consumers: Option<u64>,
    waiting: Waiting,
    journal: Looked,
    last: Option<(i64, String)>,
}

/// How the state folder is.
struct Folder {
    path: String,
    bytes: u64,
    free_bytes: u64,
    disk_bytes: u64,
}

pub async fn run(context: &Context, _args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    let mut findings = check::orphans(&project).await;
    findings.extend(check::gather(&project).await.findings);
    let folder = look_at_folder(&project.state.folder);
    findings.extend(folder.as_ref().and_then(nearly_full));
    let mut patients = Vec::new();
    if let Ok(state) = assemble::state(&project) {
        let processes = Processes::ask(&project, &mut findings).await;
        for name in project.triggers.keys() {
            patients.push(look_at_trigger(&project, &*state, name, &processes, &mut findings).await);
        }
    }
    findings.extend(patients.iter().flat_map(Patient::findings));
    let now = SystemClock.now_ms();
    match context.style {
        Style::Json => {
            super::tell_faults(context, &project.warnings);
            context.finding_lines(&project, &findings);
            context.document("examined", document(&project, folder.as_ref(), &patients, &findings));
        }
        Style::Person => {
            if let Some(folder) = &folder {
                line(&folder.tell());
            }
            for patient in &patients {
                patient.tell(now);
            }
            if findings.is_empty() {
                line("all is well");
            } else {
                note(project.show(&findings).render(context.colours).trim_end());
            }
        }
    }
    Ok(check::exit(&findings))
}

fn look_at_folder(path: &Path) -> Option<Folder> {
    let room = rustix::fs::statvfs(path).ok()?;
    Some(Folder {
        path: path.display().to_string(),
        bytes: bytes_in(path),
        free_bytes: room.f_bavail * room.f_frsize,
        disk_bytes: room.f_blocks * room.f_frsize,
    })
}

/// What the files of a folder take. One that goes while we look takes nothing.
fn bytes_in(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn nearly_full(folder: &Folder) -> Option<Finding> {
    let scarce = folder.free_bytes < ROOM_BYTES_MIN;
    scarce.then(|| {
        let what = format!("{} are left on the disk of the state folder", mebibytes(folder.free_bytes));
        Finding::warning(codes::DISK_NEARLY_FULL, "state", what)
            .remedy("make room, or keep less with `state.record`")
    })
}

/// What a process says of its triggers.
struct Asked {
    /// Where it was asked.
    url: String,
    /// Its answer; `None`: it gave none in time.
    answer: Option<Value>,
}

/// The processes that listen for this state folder, and what they say of their triggers.
struct Processes {
    /// By the number of the process, as each recorded its address.
    recorded: Vec<(u32, Asked)>,
    /// What answers at `http.listen`, for a process without a record: an earlier version, or one that could not write it.
    configured: Asked,
}

impl Processes {
    async fn ask(project: &Project, findings: &mut Vec<Finding>) -> Processes {
        let listeners = listening::listeners(&project.state.folder).unwrap_or_else(|failure| {
            findings.push(Finding::from_failure("state", &failure));
            Vec::new()
        });
        let mut recorded = Vec::new();
        for listener in listeners {
            recorded.push((listener.process, ask(project, listener.address, listener.secure).await));
        }
        let configured = ask(project, project.listen, project.listen_tls.is_some()).await;
        Processes { recorded, configured }
    }

    /// The process that runs a trigger, or, where none does, one that says why.
    fn of_trigger(&self, name: &str, holder: Option<&str>) -> &Asked {
        let of_holder = holder
            .and_then(|who| self.recorded.iter().find(|(process, _)| who == format!("process {process}")));
        let knows =
            |asked: &Asked| asked.answer.as_ref().is_some_and(|answer| answer["triggers"][name].is_object());
        let waiting = || self.recorded.iter().find(|(_, asked)| holder.is_none() && knows(asked));
        of_holder.or_else(waiting).map_or(&self.configured, |(_, asked)| asked)
    }
}

async fn ask(project: &Project, address: SocketAddr, secure: bool) -> Asked {
    // One that listens on all addresses is asked on this machine.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let url = format!("{}://{address}", if secure { "https" } else { "http" });
    let tls = project.listen_tls.as_ref().filter(|_| secure);
    let asking = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let text = match (secure, tls) {
            (false, _) => ready(stream, address).await?,
            // It has the certificate of this configuration, or is another.
            (true, Some(tls)) => {
                let config = pinned_client_config(&tls.cert).ok()?;
                let stream = TlsConnector::from(config).connect(address.ip().into(), stream).await.ok()?;
                ready(stream, address).await?
            }
            (true, None) => return None,
        };
        let (_, body) = text.split_once("\r\n\r\n")?;
        serde_json::from_str::<Value>(body).ok()
    };
    Asked { url, answer: tokio::time::timeout(ASKED, asking).await.ok().flatten() }
}

/// The answer to `GET /readyz`.
async fn ready(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> Option<String> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn look_at_trigger(
    project: &Project,
    state: &dyn State,
    name: &str,
    processes: &Processes,
    findings: &mut Vec<Finding>,
) -> Patient {
    let subject = format!("triggers.{name}");
    let trigger = &project.triggers[name];
    let queue = trigger.plan.queue.clone();
    let folder = &project.state.folder;
    let mut found = |failure: Failure| {
        let finding = Finding::from_failure(subject.clone(), &failure);
        // What `check` found is not told twice.
        if !findings.iter().any(|other| other.subject == finding.subject && other.message == finding.message)
        {
            findings.push(finding);
        }
    };
    let holder = state.holder(&format!("trigger {name}")).await.unwrap_or_else(|failure| {
        found(failure);
        None
    });
    let waiting = parking::look(folder, name).await.unwrap_or_else(|failure| {
        found(failure);
        Waiting::default()
    });
    let journal =
        in_flight::look(&folder.join("inflight"), &assemble::folder_name(name)).unwrap_or_else(|failure| {
            found(failure);
            Looked::default()
        });
    let filter =
        MessageFilter { consumer: Some(name.to_owned()), limit: Some(1), ..MessageFilter::default() };
    let last = find(folder, filter).await.unwrap_or_else(|failure| {
        found(failure);
        Vec::new()
    });
    let info = match assemble::broker(project, &trigger.broker) {
        Err(_) => None, // told by `check`
        Ok(broker) => {
            // Not every broker tells; that the queue is missing, `check` tells.
            let queues = broker.queues().await.unwrap_or_default();
            broker.close().await;
            queues.into_iter().find(|info| info.name == queue)
        }
    };
    let runs_in = holder.map(|holder| holder.who);
    let asked = processes.of_trigger(name, runs_in.as_deref());
    let said = asked.answer.as_ref().map(|answer| answer["triggers"][name].clone());
    Patient {
        name: name.to_owned(),
        runs_in,
        said: said.filter(Value::is_object),
        asked_at: asked.url.clone(),
        queue,
        messages: info.as_ref().and_then(|info| info.messages),
        consumers: info.as_ref().and_then(|info| info.consumers),
        waiting,
        journal,
        last: last.into_iter().next().map(|last| (last.ended_at, last.status.as_str().to_owned())),
    }
}

impl Patient {
    fn findings(&self) -> Vec<Finding> {
        let (subject, name) = (format!("triggers.{}", self.name), &self.name);
        let mut findings = Vec::new();
        if self.runs_in.is_none() {
            let what = format!("nobody runs trigger `{name}`");
            let mut finding = Finding::warning(codes::TRIGGER_NOT_RUNNING, &subject, what);
            if self.waiting.messages > 0 {
                let parked = counted(self.waiting.messages, "message");
                finding = finding.detail(format!("in the parking lot, and nowhere else: {parked}"));
            }
            findings.push(finding.remedy("start `warren serve`"));
        }
        if let (Some(who), None) = (&self.runs_in, &self.said) {
            let what = format!("{who} runs trigger `{name}` and does not say at {} how it is", self.asked_at);
            let remedy = "look at the log of that process, and restart it if it hangs";
            findings.push(Finding::warning(codes::PROCESS_SILENT, &subject, what).remedy(remedy));
        }
        // While nobody runs it, what stands in the journal died with the process.
        let left = if self.runs_in.is_none() { self.journal.in_hand } else { 0 };
        let suspects = (self.journal.suspects + left) as u64;
        if suspects > 0 {
            let have = if suspects == 1 { "has" } else { "have" };
            let what = format!(
                "the process died with {} of trigger `{name}` that {have} not ended since",
                counted(suspects, "message")
            );
            let remedy = "look for why it died; after three deaths a message is given up as `crashed`";
            findings.push(Finding::warning(codes::CRASH_SUSPECTS, &subject, what).remedy(remedy));
        }
        for (key, severity) in [
            ("waits_for", Severity::Error),
            ("needs_operator", Severity::Error),
            ("trouble", Severity::Warning),
        ] {
            let Some(failure) = self.said.as_ref().map(|said| &said[key]).filter(|said| said.is_object())
            else {
                continue;
            };
            let text = |key: &str| failure[key].as_str().map(str::to_owned);
            let code = text("code").and_then(|name| Code::from_name(&name));
            let Some(code) = code else { continue };
            let finding = Finding::warning(code, &subject, text("message").unwrap_or_default());
            if findings.iter().any(|told: &Finding| told.code == code && told.message == finding.message) {
                continue;
            }
            findings.push(Finding { severity, detail: text("detail"), remedy: text("remedy"), ..finding });
        }
        findings
    }

    fn tell(&self, now: i64) {
        let ago = |at: i64| format!("{} ago", span(u64::try_from(now - at).unwrap_or(0)));
        line(&format!("trigger {}", self.name));
        let state = self.said.as_ref().and_then(|said| said["state"].as_str());
        match (&self.runs_in, state) {
            (None, _) => line("  runs       nowhere"),
            (Some(who), Some(state)) => line(&format!("  runs       {state}, in {who}")),
            (Some(who), None) => line(&format!("  runs       in {who}, which does not say how it is")),
        }
        if let Some(messages) = self.messages {
            let consumers = self.consumers.map(|count| format!(", {}", counted(count, "consumer")));
            line(&format!(
                "  queue      {}: {}{}",
                self.queue,
                counted(messages, "message"),
                consumers.unwrap_or_default()
            ));
        }
        let Waiting { messages, oldest_ms, next_due_ms } = self.waiting;
        if messages > 0 {
            let oldest = oldest_ms.map(|at| format!(", the oldest came {}", ago(at))).unwrap_or_default();
            let next = match next_due_ms {
                Some(due) if due > now => format!(", the next is due in {}", span((due - now) as u64)),
                Some(due) => format!(", the next was due {}", ago(due)),
                None => String::new(),
            };
            line(&format!("  parked     {}{oldest}{next}", counted(messages, "message")));
        }
        if let Some((at, status)) = &self.last {
            line(&format!("  last       {status}, {}", ago(*at)));
        }
    }

    fn document(&self) -> Value {
        json!({
            "trigger": self.name, "runs_in": self.runs_in,
            "state": self.said.as_ref().map(|said| said["state"].clone()),
            "queue": self.queue, "messages": self.messages, "consumers": self.consumers,
            "parked": self.waiting.messages, "oldest_parked_at": self.waiting.oldest_ms,
            "next_due_at": self.waiting.next_due_ms, "in_hand": self.journal.in_hand,
            "suspects": self.journal.suspects, "crashes_max": self.journal.crashes_max,
            "last_at": self.last.as_ref().map(|(at, _)| at), "last_status": self.last.as_ref().map(|(_, status)| status),
        })
    }
}

impl Folder {
    fn tell(&self) -> String {
        let Folder { path, bytes, free_bytes, .. } = self;
        format!("state {path}: {}, {} are left on its disk", mebibytes(*bytes), mebibytes(*free_bytes))
    }
}

fn document(project: &Project, folder: Option<&Folder>, patients: &[Patient], findings: &[Finding]) -> Value {
    let state = folder.map(|folder| {
        json!({
            "folder": folder.path, "bytes": folder.bytes, "free_bytes": folder.free_bytes,
            "disk_bytes": folder.disk_bytes,
        })
    });
    json!({
        "state": state,
        "triggers": patients.iter().map(Patient::document).collect::<Vec<_>>(),
        "findings": findings.iter().map(|finding| check::finding_json(project, finding)).collect::<Vec<_>>(),
    })
}

fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}
