//! The command line: a file a command.

mod check;
mod completions;
mod demo;
mod doctor;
pub mod explain;
mod hub;
mod init;
mod messages;
mod pipeline;
mod plan;
mod queues;
mod render;
mod replay;
mod runs;
mod schema;
mod serve;
pub mod sync;
mod typed_row;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::hub::settings::LOG_TARGET;
use warren_engine::redact::scrub;
pub use warren_server::failure_json;

use crate::exit::Exit;
use crate::report::{Style, errors, note};
use warren_config::{self as config, Faults, Project};

/// Moves data between databases, message queues and HTTP.
#[derive(Debug, Parser)]
#[command(name = "warren", version = version(), about, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    /// The configuration: a file, or a folder of them.
    #[arg(short = 'c', long, global = true, value_name = "FILE|DIR", default_value = "warren.yaml")]
    config: PathBuf,
    /// Write JSON for programs instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// When to use colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// Log what goes on to stderr; twice for more. The variable WARREN_LOG overrides it (such as `warren=debug`).
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// The version, and the commit where it is known: `0.2.0 (5ce9c08a1b2c)`.
fn version() -> &'static str {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let version = env!("CARGO_PKG_VERSION");
        option_env!("WARREN_COMMIT")
            .map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
    });
    &VERSION
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Plan(plan::Args),
    Sync(sync::Args),
    Render(render::Args),
    Runs(runs::Args),
    Explain(explain::Args),
    Replay(replay::Args),
    Queues(queues::Args),
    Serve(serve::Args),
    Hub(hub::Args),
    Pipeline(pipeline::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Man(completions::ManArgs),
    Demo(demo::Args),
}

/// What every command is given.
pub struct Context {
    /// The configuration's file or folder.
    pub config: PathBuf,
    /// How to tell.
    pub style: Style,
    /// Whether stderr takes colours.
    pub colours: config::Colours,
    /// Told when the person or the system wants an end.
    pub cancel: CancellationToken,
}

/// Why a command ends before its end.
pub enum Stop {
    /// The configuration has faults.
    Config(Box<Faults>),
    /// Something failed; a place in the configuration may belong to it.
    Failure(Failure),
    /// It was told already.
    Told(Exit),
}

impl From<Box<Faults>> for Stop {
    fn from(faults: Box<Faults>) -> Stop {
        Stop::Config(faults)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl From<Exit> for Stop {
    fn from(exit: Exit) -> Stop {
        Stop::Told(exit)
    }
}

/// Closes a broker's connections. What it had to do is done, so one that does not answer is not waited for.
pub async fn farewell(broker: &dyn warren_engine::ports::Broker) {
    tokio::time::timeout(FAREWELL_MAX, broker.close()).await.ok();
}

/// How long the end of connections may keep a command from ending.
const FAREWELL_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Parses the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refused(&error).into(),
    };
    logs(args.verbose);
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        note(&match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{panic}\n{backtrace}"),
            _ => panic.to_string(),
        });
    }));
    let context = Context {
        config: args.config,
        style: if args.json { Style::Json } else { Style::Person },
        colours: colours(args.color),
        cancel: CancellationToken::new(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(FailureKind::Unavailable, codes::INTERNAL, "start the threads");
            let failure = failure.detail(error.to_string()).remedy("allow Warren's user more threads");
            return told(&context, failure.into()).into();
        }
    };
    let exit = caught(&context, || runtime.block_on(run(&context, args.command)));
    // What still waits for a broker that does not answer must not keep the person waiting.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    exit.into()
}

/// A command line that cannot be understood, or one that asks for help or the version.
fn refused(error: &clap::Error) -> Exit {
    let until_end = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    let is_json = until_end.into_iter().any(|argument| argument == "--json");
    if error.use_stderr() && is_json {
        let failure = invalid_arguments(error.kind(), &error.render().to_string());
        crate::report::line(&errors::of_failure(&failure).to_string());
    } else {
        // Help and version go to stdout, faults to stderr; a closed pipe is no error.
        error.print().ok();
    }
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// What the parser says of a command line, as a failure: its first paragraph, and the usage or its own tip as the way out.
fn invalid_arguments(kind: clap::error::ErrorKind, text: &str) -> Failure {
    use clap::error::ErrorKind;
    let no_command =
        matches!(kind, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand);
    let paragraph = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let detail = if no_command {
        "a command is missing".to_owned()
    } else {
        paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let line = |prefix: &str| text.lines().find_map(|line| line.trim_start().strip_prefix(prefix));
    let remedy = match (line("tip: "), line("Usage: ")) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(usage)) => format!("call it as `{}`", usage.trim()),
        (None, None) => "call `warren --help`".to_owned(),
    };
    Failure::new(FailureKind::Invalid, codes::INVALID_ARGUMENTS, "read the command line")
        .detail(detail)
        .remedy(remedy)
}

/// Runs a command; a panic ends it as a failure that is told like any other.
fn caught(context: &Context, run: impl FnOnce() -> Exit) -> Exit {
    // Nothing is used afterwards that the panic could have left half done.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|panic| told(context, of_panic(panic.as_ref()).into()))
}

fn of_panic(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::internal("run the command")
        .detail(text.unwrap_or("it panicked").to_owned())
        .remedy("report it with the lines on stderr")
}

fn colours(choice: ColorChoice) -> config::Colours {
    use std::io::IsTerminal;
    match choice {
        ColorChoice::Always => config::Colours::On,
        ColorChoice::Never => config::Colours::Off,
        ColorChoice::Auto => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            if std::io::stderr().is_terminal() && !plain { config::Colours::On } else { config::Colours::Off }
        }
    }
}

async fn run(context: &Context, command: Command) -> Exit {
    let mut listening = tokio::task::JoinSet::new();
    let serves = matches!(command, Command::Serve(_));
    listening.spawn(signals(context.cancel.clone(), context.style, serves));
    let result = match command {
        Command::Init(args) => init::run(context, &args),
        Command::Check(args) => check::run(context, &args).await,
        Command::Doctor(args) => doctor::run(context, &args).await,
        Command::Plan(args) => plan::run(context, &args).await,
        Command::Sync(args) => sync::run(context, &args).await,
        Command::Render(args) => render::run(context, &args).await,
        Command::Runs(args) => runs::run(context, &args).await,
        Command::Explain(args) => explain::run(context, &args).await,
        Command::Replay(args) => replay::run(context, &args).await,
        Command::Queues(args) => queues::run(context, &args).await,
        Command::Serve(args) => serve::run(context, &args).await,
        Command::Hub(args) => hub::run(context, &args),
        Command::Pipeline(args) => pipeline::run(context, &args).await,
        Command::Schema(args) => Ok(schema::run(&args)),
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Man(args) => completions::write_man_pages(&args),
        Command::Demo(args) => demo::run(context, &args).await,
    };
    drop(listening);
    result.unwrap_or_else(|stop| told(context, stop))
}

/// Tells why a command, or a part of it, ended, and with which exit.
fn told(context: &Context, stop: Stop) -> Exit {
    match stop {
        Stop::Told(exit) => exit,
        Stop::Config(faults) => {
            tell_faults(context, &faults);
            Exit::Usage
        }
        Stop::Failure(failure) => {
            context.error(&failure);
            Exit::of_code(failure.code)
        }
    }
}

/// SIGINT and SIGTERM ask for a clean end: what is in flight is settled and recorded. A second one ends at once. SIGHUP does not end
/// `serve`, which has no terminal that could be closed; it ends other commands as the others do.
async fn signals(cancel: CancellationToken, style: Style, serves: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return; // without handlers a signal ends the process, which loses nothing either
    };
    // A handler of ours would undo `nohup`.
    let mut hangup = if hangup_is_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    let mut first = true;
    loop {
        // Dropping a wait for a signal loses none: the others are waited for again.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = next(&mut hangup) => if serves {
                note(
                    "SIGHUP: passwords, keys and certificates that come from files are read again at the next login; \
                     other changes of the configuration need a restart",
                );
                continue;
            },
        }
        if !std::mem::replace(&mut first, false) {
            if style == Style::Json {
                last_line(errors::of_failure(&ended_at_once()).to_string());
            }
            std::process::exit(i32::from(Exit::Interrupted as u8));
        }
        note("shutting down gracefully; press Ctrl-C again to exit immediately (no data is lost)");
        cancel.cancel();
    }
}

/// A second signal.
fn ended_at_once() -> Failure {
    Failure::new(FailureKind::Unavailable, codes::CANCELLED, "end in good order")
        .detail("a second signal ended the process at once")
        .remedy("run the command again: it continues where it was")
}

/// Writes a line to stdout before the process ends. A reader that does not read must not keep it from ending.
fn last_line(text: String) {
    let (done, waits) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        crate::report::line(&text);
        done.send(()).ok(); // the process may be ending already
    });
    waits.recv_timeout(LAST_LINE_MAX).ok();
}

/// How long the last line may keep the process from ending.
const LAST_LINE_MAX: std::time::Duration = std::time::Duration::from_millis(200);

async fn next(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether whoever started us wants SIGHUP to be ignored.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0))
}

fn logs(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    // What a setting asks for is logged without a flag.
    let level = format!("{level},{LOG_TARGET}=info");
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| CleanStderr)
        .with_target(verbose > 1)
        .init();
}

/// The error output without what came from variables: libraries log what they were given.
struct CleanStderr;

impl std::io::Write for CleanStderr {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = scrub(String::from_utf8_lossy(line));
        std::io::stderr().write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl Context {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All its faults.
    pub fn project(&self) -> Result<Project, Stop> {
        Ok(config::load(&self.config)?)
    }

    /// Says something to a person; programs are told by documents.
    pub fn say(&self, text: &str) {
        if self.style == Style::Person {
            crate::report::line(text);
        }
    }

    /// Gives a program a document, with the name that it is known by.
    pub fn document(&self, event: &str, document: serde_json::Value) {
        if self.style == Style::Json {
            crate::report::event(event, document);
        }
    }

    /// Tells what failed: what, where, why, the way out.
    pub fn error(&self, failure: &Failure) {
        match self.style {
            Style::Person => note(&failure_text(failure)),
            Style::Json => crate::report::line(&errors::of_failure(failure).to_string()),
        }
    }

    /// Gives a program a line for each finding; a person is shown them otherwise.
    pub fn finding_lines(&self, project: &Project, findings: &[Finding]) {
        if self.style == Style::Json {
            for finding in findings {
                crate::report::line(&errors::of_finding(project, finding).to_string());
            }
        }
    }
}

/// Shows the faults of a configuration.
fn tell_faults(context: &Context, faults: &Faults) {
    match context.style {
        Style::Person => note(faults.render(context.colours).trim_end()),
        Style::Json => faults.events().iter().for_each(|event| crate::report::line(&event.to_string())),
    }
}

/// A failure for a person, with its causes, once.
pub fn failure_text(failure: &Failure) -> String {
    use std::error::Error;
    use std::fmt::Write;
    let mut text = format!("error[{}]: {failure}", failure.code);
    let mut cause = failure.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !text.contains(&sentence) {
            write!(text, "\n  because: {sentence}").ok(); // writing to a String does not fail
        }
        cause = error.source();
    }
    if let Some(remedy) = &failure.remedy {
        write!(text, "\n  help: {remedy}").ok(); // as above
    }
    // Causes are errors of others, which quote what they were given.
    scrub(text).into_owned()
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> serde_json::Value {
        let error = Args::try_parse_from([&["warren"], arguments].concat()).unwrap_err();
        errors::of_failure(&invalid_arguments(error.kind(), &error.render().to_string()))
    }

    #[test]
    fn a_command_line_that_is_wrong_is_a_failure_with_cause_and_help() {
        for (arguments, detail, help) in [
            (&["check", "--nope"][..], "unexpected argument '--nope' found", "call it as `warren check"),
            (
                &["sync"],
                "the following required arguments were not provided: <SYNC>...",
                "call it as `warren sync",
            ),
            (&["doctr"], "unrecognized subcommand 'doctr'", "a similar subcommand exists: 'doctor'"),
            (&["--json"], "a command is missing", "call it as `warren"),
            (&["hub"], "a command is missing", "call it as `warren hub"),
            (&["sync", "a", "--all"], "cannot be used with", "call it as `warren sync"),
            (&["runs", "--limit", "x"], "invalid value 'x' for '--limit <N>'", "call `warren --help`"),
        ] {
            let line = of(arguments);
            assert_eq!((&line["event"], &line["code"]), (&"error".into(), &"invalid-arguments".into()));
            assert!(line["detail"].as_str().unwrap().contains(detail), "{arguments:?}: {line:#}");
            assert!(line["help"].as_str().unwrap().starts_with(help), "{arguments:?}: {line:#}");
        }
    }

    #[test]
    fn a_panic_ends_the_command_with_a_failure() {
        let context = Context {
            config: PathBuf::new(),
            style: Style::Json,
            colours: config::Colours::Off,
            cancel: CancellationToken::new(),
        };
        assert_eq!(caught(&context, || Exit::Rejected), Exit::Rejected);
        assert_eq!(caught(&context, || panic!("a bug in {}", "the test")), Exit::Failed);
        let panic = std::panic::catch_unwind(|| panic!("a bug in {}", "the test")).unwrap_err();
        let line = errors::of_failure(&of_panic(panic.as_ref()));
        assert_eq!((&line["code"], &line["detail"]), (&"internal".into(), &"a bug in the test".into()));
        assert_eq!(line["event"], "error");
    }
}
