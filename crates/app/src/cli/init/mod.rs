//! `warren init`: a commented configuration to begin with.

mod erlang;
mod rabbithub;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::{Style, note};

/// Write a commented warren.yaml, asking only what it must.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where rows come from. Asked for on a terminal.
    #[arg(long, value_name = "KIND")]
    source: Option<SourceKind>,
    /// Where messages go. Asked for on a terminal.
    #[arg(long, value_name = "KIND")]
    broker: Option<BrokerKind>,
    /// Write one of the examples instead; `list` lists them.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source", "broker"])]
    example: Option<String>,
    /// Make it of RabbitHub's configuration: the classic `rabbitmq.config`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "broker", "example"])]
    from_rabbithub: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SourceKind {
    Postgres,
    Mysql,
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BrokerKind {
    Rabbitmq,
    Sqs,
    Embedded,
}

/// The examples: name, what it shows, text.
pub const EXAMPLES: [(&str, &str, &str); 4] = [
    (
        "routing",
        "queue by column, conditions on old and new values, typed headers",
        include_str!("routing.yaml"),
    ),
    ("exchange", "an exchange with a routing key per row, properties, guards", include_str!("exchange.yaml")),
    (
        "fields",
        "no template: columns with renames, and one column that holds the message",
        include_str!("fields.yaml"),
    ),
    ("sqlite", "SQLite into the embedded broker: nothing to install", include_str!("sqlite.yaml")),
];

pub fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    if args.example.as_deref() == Some("list") {
        for (name, what, _) in EXAMPLES {
            context.say(&format!("{name:<10} {what}"));
            context.document("example", json!({ "name": name, "about": what }));
        }
        return Ok(Exit::Done);
    }
    let path = &context.config;
    if path.exists() && !args.force {
        let what = format!("{} is there already", path.display());
        return Err(Failure::new(FailureKind::Refused, codes::INVALID_VALUE, what)
            .remedy("write elsewhere with `-c FILE`, or over it with `--force`")
            .into());
    }
    if let Some(old) = &args.from_rabbithub {
        return from_rabbithub(context, path, old);
    }
    let text = if let Some(name) = &args.example {
        example(name)?.to_owned()
    } else {
        let source = choose("Where do rows come from", args.source, SourceKind::Postgres)?;
        let broker = choose("Where do messages go", args.broker, BrokerKind::Rabbitmq)?;
        compose(source, broker)
    };
    write(path, &text)?;
    if context.style == Style::Json {
        context.document("written", json!({ "file": path.display().to_string(), "notes": [] }));
        return Ok(Exit::Done);
    }
    note(&format!("{} is written; every key is explained in it", path.display()));
    note("next:  fill in what it names (the environment can hold secrets), then");
    let flag = flag(path);
    note(&format!("  warren {flag}check           all that would fail later, at once"));
    note(&format!("  warren {flag}plan customers  what would be sent"));
    note(&format!("  warren {flag}sync customers  send it"));
    Ok(Exit::Done)
}

fn from_rabbithub(context: &Context, path: &Path, old: &Path) -> Result<Exit, Stop> {
    let migrated = rabbithub::migrate_file(old)?;
    write(path, &migrated.yaml)?;
    if context.style == Style::Json {
        let document = json!({ "file": path.display().to_string(), "notes": migrated.notes });
        context.document("written", document);
        return Ok(Exit::Done);
    }
    note(&format!("{} is written", path.display()));
    for left_out in &migrated.notes {
        note(&format!("  note: {left_out}"));
    }
    note("next:  give it the broker's login (RABBIT_URL and RABBIT_MANAGEMENT_URL), then");
    note(&format!("  warren {}check  all that would fail later, at once", flag(path)));
    note(&format!(
        "  warren {}serve  run it; then import the subscriptions (docs/migration-rabbithub.md)",
        flag(path)
    ));
    Ok(Exit::Done)
}

/// What names the configuration on the command line.
fn flag(path: &Path) -> String {
    if path == Path::new("warren.yaml") { String::new() } else { format!("-c {} ", path.display()) }
}

fn example(name: &str) -> Result<&'static str, Failure> {
    if let Some((_, _, text)) = EXAMPLES.iter().find(|(other, _, _)| *other == name) {
        return Ok(text);
    }
    let failure =
        Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, format!("there is no example `{name}`"));
    let names: Vec<&str> = EXAMPLES.iter().map(|(name, _, _)| *name).collect();
    Err(failure.remedy(format!("the examples are: {}", names.join(", "))))
}

/// What was given, or what the person at the terminal says, or the default.
fn choose<T: ValueEnum + Copy + PartialEq>(
    question: &str,
    given: Option<T>,
    default: T,
) -> Result<T, Failure> {
    if let Some(given) = given {
        return Ok(given);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(default);
    }
    let name =
        |value: &T| value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let names: Vec<String> = T::value_variants().iter().map(name).collect();
    loop {
        let mut err = std::io::stderr().lock();
        // A terminal that cannot be written to will not be read from either: the next line ends it.
        write!(err, "{question}? {} [{}] ", names.join(", "), name(&default)).and_then(|()| err.flush()).ok();
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        match (read, answer.trim()) {
            (Err(_) | Ok(0), _) | (Ok(_), "") => return Ok(default),
            (Ok(_), text) => match T::from_str(text, true) {
                Ok(value) => return Ok(value),
                Err(_) => note(&format!("please say one of: {}", names.join(", "))),
            },
        }
    }
}

fn compose(source: SourceKind, broker: BrokerKind) -> String {
    let source = match source {
        SourceKind::Postgres => include_str!("source-postgres.yaml"),
        SourceKind::Mysql => include_str!("source-mysql.yaml"),
        SourceKind::Sqlite => include_str!("source-sqlite.yaml"),
    };
    let (broker, options) = match broker {
        BrokerKind::Rabbitmq => (include_str!("broker-rabbitmq.yaml"), include_str!("sync-rabbitmq.yaml")),
        BrokerKind::Sqs => (include_str!("broker-sqs.yaml"), include_str!("sync-sqs.yaml")),
        BrokerKind::Embedded => (include_str!("broker-embedded.yaml"), include_str!("sync-embedded.yaml")),
    };
    [include_str!("head.yaml"), source, include_str!("models.yaml"), broker, options].join("\n")
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("write {}", path.display()))
            .detail(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that `init` can write.
    pub(crate) fn written() -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> =
            EXAMPLES.iter().map(|(name, _, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        for source in SourceKind::value_variants() {
            for broker in BrokerKind::value_variants() {
                all.push((format!("{source:?}-{broker:?}"), compose(*source, *broker)));
            }
        }
        all
    }

    #[test]
    fn all_that_init_writes_loads() {
        for (name, text) in written() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("warren.yaml");
            let is_mysql = text.contains("type: mysql");
            let shop = if is_mysql { "mysql://u:p@127.0.0.1/shop" } else { "postgres://u:p@127.0.0.1/shop" };
            // Secrets come from the environment, which a test does not set.
            let text = text.replace("${SHOP_URL}", shop).replace("${RABBIT_URL}", "amqp://u:p@127.0.0.1");
            std::fs::write(&path, text).unwrap();
            if let Err(faults) = warren_config::load(&path) {
                panic!("{name}:\n{}", faults.render(warren_config::Colours::Off));
            }
        }
    }
}
