//! `warren render`: the message of one row; or a template with a row, and no configuration at all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::redact::scrub;
use warren_engine::sync::preview;
use warren_liquid::{Columns, ErrorKind, Format, Options, Template, Val};

use crate::assemble::Assembly;
use crate::cli::typed_row::{Cell, Columns as RowColumns};
use crate::cli::{Context, Stop, failure_json, failure_text};
use crate::exit::Exit;
use crate::report::{Style, line, note, summary};
use warren_config::model::Partials;
use warren_config::text::{Files, Span};
use warren_config::tree::{Node, NodeKind};

/// Show the message of one row of a sync; or render a template with a row, without any configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sync.
    #[arg(value_name = "SYNC", required_unless_present = "template", conflicts_with = "template")]
    sync: Option<String>,
    /// The key of the row (several columns: a JSON array).
    #[arg(long, value_name = "KEY", requires = "sync")]
    key: Option<String>,
    /// As this kind of change: added, changed or removed.
    #[arg(long, value_name = "OP", default_value = "added")]
    op: String,
    /// A template's file.
    #[arg(long, value_name = "FILE", requires = "row")]
    template: Option<PathBuf>,
    /// A file with the row as a JSON object; what the template sees as `row`. Values that JSON lacks have typed forms, such as
    /// `{"$decimal": "12.50"}`; the documentation of templates lists them. With a member `row` that is an object,
    /// its other members (`previous`, `changed`, `op`, …) are seen under their own names.
    #[arg(long, value_name = "FILE")]
    row: Option<PathBuf>,
    /// The template makes text and not JSON.
    #[arg(long)]
    text: bool,
    /// The reference's lenient ways: what is unknown renders as nothing.
    #[arg(long)]
    lax: bool,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    match (&args.sync, &args.template, &args.row) {
        (Some(sync), _, _) => row_of_sync(context, args, sync).await,
        (None, Some(template), Some(row)) => Ok(template_with_row(context, args, template, row)?),
        // Invariant: clap asks for one or the other.
        (None, _, _) => Ok(Exit::Usage),
    }
}

async fn row_of_sync(context: &Context, args: &Args, sync: &str) -> Result<Exit, Stop> {
    let Some(key) = &args.key else {
        let failure = invalid("render wants to know which row".into());
        return Err(failure.remedy("name its key: `--key K`").into());
    };
    let op = args.op.parse().map_err(|()| {
        invalid(format!("`{}` is no kind of change", args.op)).remedy("they are added, changed, removed")
    })?;
    let project = context.project()?;
    super::sync::known(&project, sync)?;
    let assembly = Assembly::open(&project)?;
    let parts = assembly.sync(sync)?;
    let rendered = preview::render_row(&parts.plan, &parts.ports, key, op, &context.cancel).await?;
    let Some(rendered) = rendered else {
        let failure = Failure::new(
            FailureKind::NotFound,
            codes::UNKNOWN_NAME,
            format!("no row of model `{}` has the key {key}", parts.plan.model.name),
        );
        return Err(failure.into());
    };
    if context.style == Style::Json
        && let Some(failure) = &rendered.failure
    {
        context.error(failure);
    }
    let document = json!({
        "message": rendered.outbound.as_ref().map(summary::outbound_json),
        "failure": rendered.failure.as_ref().map(failure_json),
    });
    context.document("rendered", document);
    if context.style == Style::Person {
        match &rendered.outbound {
            Some(outbound) => {
                note(&format!("to {}", outbound.route));
                let properties = serde_json::to_value(&outbound.message.properties).unwrap_or_default();
                note(&format!("properties {properties}"));
                line(&scrub(String::from_utf8_lossy(&outbound.message.body)));
            }
            None if rendered.failure.is_none() => line("nothing is sent for this row"),
            None => {}
        }
        if let Some(failure) = &rendered.failure {
            note(&failure_text(failure));
        }
    }
    Ok(if rendered.failure.is_some() { Exit::Rejected } else { Exit::Done })
}

fn template_with_row(context: &Context, args: &Args, template: &Path, row: &Path) -> Result<Exit, Failure> {
    let source = read(template)?;
    let row = read(row)?;
    let parsed: Value = serde_json::from_str(&row).map_err(|error| {
        invalid(format!("the row is not JSON: {error}")).at(args_place(args.row.as_ref()))
    })?;
    let Value::Object(object) = &parsed else {
        return Err(invalid("the row is not a JSON object".into()).at(args_place(args.row.as_ref())));
    };
    let whole = matches!(object.get("row"), Some(Value::Object(_)));
    let wrong = |why: String| invalid(format!("read the row: {why}")).at(args_place(args.row.as_ref()));
    let seen: Vec<(String, Cell)> = if whole {
        let seen = object.iter().map(|(name, value)| Ok((name.clone(), global(name, value)?)));
        seen.collect::<Result<_, _>>().map_err(wrong)?
    } else {
        vec![("row".to_owned(), Cell::Row(RowColumns::read(object).map_err(wrong)?))]
    };
    let columns: Vec<&str> = match object.get("row") {
        Some(Value::Object(row)) => row.keys().map(String::as_str).collect(),
        _ => object.keys().map(String::as_str).collect(),
    };
    let format = if args.text { Format::Text } else { Format::Json };
    let partials = partials(template, &source)?;
    let looked_for = partials.looked_for();
    let partials = partials.texts;
    let name = template.display().to_string();
    let options = Options { format, lax: args.lax, partials, name, ..Options::default() };
    let compiled = Template::parse(&source, &options).map_err(|mut error| {
        if error.kind == ErrorKind::UnknownPartial && error.hint.is_none() {
            error.hint = Some(looked_for);
        }
        fault(&error, codes::TEMPLATE_SYNTAX)
    })?;
    let tops = warren_engine::sync::view::GLOBALS;
    if !args.lax
        && let Some(error) = compiled.check(&warren_liquid::Names { tops: &tops, columns: &columns }).first()
    {
        return Err(fault(error, codes::UNKNOWN_COLUMN));
    }
    let mut globals: Vec<(&str, Val<'_>)> = tops.iter().map(|top| (*top, Val::Nil)).collect();
    for (name, cell) in &seen {
        globals.retain(|(other, _)| other != name);
        globals.push((name, cell.val()));
    }
    let mut out = Vec::new();
    compiled.render(&globals, &mut out).map_err(|error| fault(&error, codes::TEMPLATE_FAILED))?;
    let valid = if args.text { Ok(()) } else { warren_liquid::json::validate(&out) };
    let reads = reads_json(&compiled);
    let text = String::from_utf8_lossy(&out);
    let document = json!({
        "result": text, "reads": reads,
        "fault": valid.as_ref().err().map(|fault| json!({
            "line": fault.line, "column": fault.column, "message": fault.message,
        })),
    });
    if context.style == Style::Json
        && let Err(fault) = &valid
    {
        let failure = Failure::new(FailureKind::Invalid, codes::INVALID_JSON, "the result is not JSON");
        context.error(&failure.detail(fault.to_string()));
    }
    context.document("rendered", document);
    if context.style == Style::Person {
        line(&text);
        note(&format!("reads {reads}"));
        if let Err(fault) = &valid {
            note(&format!("error[{}]: the result is not JSON: {fault}", codes::INVALID_JSON));
        }
    }
    Ok(if valid.is_ok() { Exit::Done } else { Exit::Rejected })
}

/// A global name: a row, a key of several columns, or a value.
fn global(name: &str, value: &Value) -> Result<Cell, String> {
    match (name, value) {
        ("row" | "previous" | "key", Value::Object(columns)) if !is_typed(columns) => {
            RowColumns::read(columns).map(Cell::Row)
        }
        _ => Cell::read(value),
    }
}

fn is_typed(map: &serde_json::Map<String, Value>) -> bool {
    map.len() == 1 && map.keys().all(|name| name.starts_with('$'))
}

/// The partials in the folder `templates` beside a template, as a configuration beside it would have them.
fn partials(template: &Path, source: &str) -> Result<Partials, Failure> {
    let (mut files, mut faults) = (Files::default(), Vec::new());
    let file = files.add(template, source);
    let nothing = Node { span: Span { file, start: 0, end: 0 }, kind: NodeKind::Map(Vec::new()) };
    let root = template.parent().unwrap_or(Path::new(""));
    let partials = Partials::read(&nothing, root, &mut files, &mut faults);
    match faults.into_iter().next() {
        None => Ok(partials),
        Some(fault) => {
            let failure = Failure::new(FailureKind::Invalid, fault.code, fault.message);
            Err(fault.remedy.into_iter().fold(failure, Failure::remedy))
        }
    }
}

fn reads_json(template: &Template) -> Value {
    let reads = template.reads();
    let columns = match &reads.columns {
        Columns::All => json!("all"),
        Columns::Set(names) => json!(names),
    };
    json!({ "columns": columns, "previous": reads.previous, "changed": reads.changed, "can_fail": reads.can_fail })
}

fn fault(error: &warren_liquid::Error, code: codes::Code) -> Failure {
    let mut failure = Failure::new(FailureKind::Invalid, code, error.message.clone())
        .at(format!("{}:{}:{}", error.name, error.line, error.column))
        .detail(format!("`{}`", error.source_line.trim()));
    failure.remedy.clone_from(&error.hint);
    failure
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| invalid(format!("read {}: {error}", path.display())))
}

fn invalid(what: String) -> Failure {
    Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
}

fn args_place(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
