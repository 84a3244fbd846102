//! What is sent for one op: the keys of the sync with those of its trigger over them, compiled.

use std::path::Path;

use jiff::Timestamp;
use warren_engine::change::Op;
use warren_engine::codes;
use warren_engine::sync::plan::{
    BodyPlan, Dynamic, HeaderPlan, HeaderType, PropertyPlan, RoutePlan, Trigger,
};
use warren_liquid::{Columns, Format, Reads};

use super::de;
use super::faults::Fault;
use super::model::{Partials, unreadable_fault};
use super::parts::SQS;
use super::places::Places;
use super::raw::forms::Fields;
use super::raw::sync::{Format as RawFormat, RawMessage, RawTrigger};
use super::raw::varying::{Header, HeaderKind, Value, Varying};
use super::template::{Origin, Templates};
use super::text::{Files, Span, read};
use super::tree::{Entry, Node, NodeKind};

/// The longest short string of AMQP, in bytes.
const SHORT_BYTES_MAX: usize = 255;

/// Compiles one trigger.
pub struct TriggerReader<'a> {
    /// The texts; those of `file:` are added.
    pub files: &'a mut Files,
    /// Where things stand.
    pub places: &'a mut Places,
    /// What is wrong.
    pub faults: &'a mut Vec<Fault>,
    /// The partials.
    pub partials: &'a Partials,
    /// The subject of the sync, such as `syncs.customers`.
    pub sync: &'a str,
    /// The subject of the trigger, such as `syncs.customers.on.added`; the sync's own if it is that of several ops.
    pub path: &'a str,
    /// Where what it belongs to is named.
    pub key: Span,
    /// The keys that count, each where it was written.
    pub node: &'a Node,
    /// What the templates can rely on.
    pub rows: KeptRows<'a>,
    /// The kind of the broker; `None`: it is not known.
    pub kind: Option<&'a str>,
}

/// What is known of the rows of a trigger.
#[derive(Clone, Copy)]
pub struct KeptRows<'a> {
    /// What happened to them; several where a trigger is that of several ops.
    pub ops: &'a [Op],
    /// Whether the rows last sent are kept.
    pub kept: bool,
    /// The model's key.
    pub key: &'a [String],
}

/// The keys of a sync that count in a trigger: the sync's own, with those of the trigger over them. A destination
/// replaces a destination as a whole, so that a trigger may name a queue where the sync names an exchange.
pub fn overlaid(sync: &Node, own: Option<&Node>, keys: &[String]) -> Node {
    let is_option = |entry: &&Entry| keys.contains(&entry.key);
    let own: Vec<Entry> = own.and_then(Node::entries).unwrap_or_default().to_vec();
    let has = |key: &str| own.iter().any(|entry| entry.key == key);
    let replaced = |key: &str| match key {
        "queue" => has("exchange"),
        "exchange" | "routing_key" => has("queue"),
        _ => false,
    };
    let inherited: Vec<Entry> = sync
        .entries()
        .unwrap_or_default()
        .iter()
        .filter(is_option)
        .filter(|entry| !has(&entry.key) && !replaced(&entry.key))
        .cloned()
        .collect();
    Node { span: sync.span, kind: NodeKind::Map(inherited.into_iter().chain(own).collect()) }
}

impl TriggerReader<'_> {
    /// The trigger. `None`: something is wrong with it, and was told.
    pub fn trigger(mut self) -> Option<Trigger> {
        let raw: RawTrigger = match de::read(self.node, self.path) {
            Ok(raw) => raw,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        let before = self.faults.len();
        self.foreign_keys();
        let when = raw.when.as_deref().and_then(|text| self.when(text));
        let route = self.route(&raw);
        let body = self.body(raw.message.as_ref());
        let properties = match self.kind {
            Some(SQS) => self.sqs(&raw, route.as_ref()),
            _ => self.properties(&raw),
        };
        if self.faults.len() > before {
            return None;
        }
        Some(Trigger { when, route: route?, body: body?, properties })
    }

    fn when(&mut self, text: &str) -> Option<warren_liquid::Condition> {
        let node = self.node.get("when")?;
        let subject = format!("{}.when", self.path);
        let condition = self.templates().condition(text, &subject, Origin::Value(node))?;
        self.check_reads(condition.reads(), node.span);
        Some(condition)
    }

    fn route(&mut self, raw: &RawTrigger) -> Option<RoutePlan> {
        let entry = |key: &str| self.node.entry(key);
        match (entry("queue"), entry("exchange"), entry("routing_key")) {
            (Some(queue), Some(other), _) | (Some(queue), None, Some(other)) => {
                let (first, second) = if queue.span < other.span { (queue, other) } else { (other, queue) };
                let message = format!(
                    "`{}` and `{}` are both given: a message has one destination",
                    first.key, second.key
                );
                self.faults.push(
                    Fault::new(codes::CONFLICTING_KEYS, second.span, message)
                        .also(first.span, "the first one")
                        .remedy("keep `queue`, or `exchange` with `routing_key`"),
                );
                None
            }
            (None, None, Some(routing_key)) => {
                self.faults.push(
                    Fault::new(
                        codes::MISSING_KEY,
                        routing_key.span,
                        "`routing_key` is given without `exchange`",
                    )
                    .remedy("add `exchange:`, or write `queue:` instead"),
                );
                None
            }
            (None, None, None) => {
                self.faults.push(
                    Fault::new(
                        codes::MISSING_KEY,
                        self.key,
                        format!("`{}` does not say where messages go", self.path),
                    )
                    .remedy("add `queue:`, or `exchange:` with `routing_key:`"),
                );
                None
            }
            (Some(_), None, None) => {
                let queue = self.short("queue", raw.queue.as_ref()?);
                self.not_empty("queue", queue.as_ref(), "name a queue");
                queue.map(RoutePlan::Queue)
            }
            (None, Some(_), _) => {
                let exchange = self.short("exchange", raw.exchange.as_ref()?);
                self.not_empty(
                    "exchange",
                    exchange.as_ref(),
                    "name an exchange; for the default exchange write `queue:`",
                );
                let routing_key = match &raw.routing_key {
                    Some(routing_key) => self.short("routing_key", routing_key),
                    None => Some(Dynamic::Literal(String::new())),
                };
                Some(RoutePlan::Exchange { exchange: exchange?, routing_key: routing_key? })
            }
        }
    }

    fn not_empty(&mut self, key: &str, dynamic: Option<&Dynamic>, remedy: &str) {
        if matches!(dynamic, Some(Dynamic::Literal(text)) if text.is_empty()) {
            let fault = Fault::new(codes::INVALID_VALUE, self.place(key), format!("`{key}` is empty"));
            self.faults.push(fault.remedy(remedy));
        }
    }

    fn body(&mut self, raw: Option<&RawMessage>) -> Option<BodyPlan> {
        let Some((raw, entry)) = raw.zip(self.node.entry("message")) else {
            self.faults.push(
                Fault::new(
                    codes::MISSING_KEY,
                    self.key,
                    format!("`{}` does not say what its messages are", self.path),
                )
                .remedy("add `message:` with `template`, `file`, `column` or `fields`"),
            );
            return None;
        };
        let node = &entry.value;
        let given: Vec<&Entry> =
            ["template", "file", "column", "fields"].into_iter().filter_map(|key| node.entry(key)).collect();
        let [one] = given.as_slice() else {
            self.faults.push(match given.as_slice() {
                [first, second, ..] => Fault::new(
                    codes::CONFLICTING_KEYS,
                    second.span,
                    format!(
                        "`{}` and `{}` are both given: a message is made in one way",
                        first.key, second.key
                    ),
                )
                .also(first.span, "the first one")
                .remedy("remove one of them"),
                _ => Fault::new(codes::MISSING_KEY, entry.span, "this does not say what the message is")
                    .remedy("add `template`, `file`, `column` or `fields`"),
            });
            return None;
        };
        let json = raw.format == RawFormat::Json;
        if let Some(column) = &raw.column {
            self.check_column(column, one.value.span);
            return Some(BodyPlan::Column { column: column.clone(), json });
        }
        if let Some(fields) = &raw.fields {
            return self.fields(fields, json, &one.value, node);
        }
        let format = if json { Format::Json } else { Format::Text };
        let subject = format!("{}.message.template", self.path);
        let template = match (&raw.template, &raw.file) {
            (Some(text), _) => {
                let mut templates = self.templates();
                templates.lax = raw.lax;
                templates.template(text, format, &subject, Origin::Value(&one.value))?
            }
            (None, Some(file)) => match read(Path::new(file)) {
                Ok(text) => {
                    let id = self.files.add(file, text.clone());
                    self.places.note_file(&subject, id);
                    for op in self.rows.ops {
                        self.places.note_file(&format!("{}.on.{op}.message.template", self.sync), id);
                    }
                    let mut templates = self.templates();
                    templates.lax = raw.lax;
                    templates.template(&text, format, &subject, Origin::File(id))?
                }
                Err(unreadable) => {
                    self.faults.push(unreadable_fault(file, unreadable, one.value.span));
                    return None;
                }
            },
            (None, None) => return None,
        };
        self.check_reads(template.reads(), one.span);
        Some(BodyPlan::Template { template: Box::new(template), json })
    }

    fn fields(&mut self, fields: &Fields, json: bool, value: &Node, message: &Node) -> Option<BodyPlan> {
        if !json {
            let span = message.entry("format").map_or(value.span, |format| format.span);
            self.faults.push(
                Fault::new(
                    codes::CONFLICTING_KEYS,
                    span,
                    "`fields` makes a JSON object, and `format` says text",
                )
                .remedy("remove `format`, or write a `template`"),
            );
            return None;
        }
        match fields {
            Fields::All => Some(BodyPlan::AllFields),
            Fields::Named(named) => {
                for (name, column) in named {
                    let span = value.get(name).map_or(value.span, |node| node.span);
                    self.check_column(column, span);
                }
                Some(BodyPlan::Fields(named.clone()))
            }
        }
    }

    fn properties(&mut self, raw: &RawTrigger) -> PropertyPlan {
        let mut short = |key: &str, varying: &Option<Varying<String>>| self.short(key, varying.as_ref()?);
        let mut plan = PropertyPlan {
            content_type: short("content_type", &raw.content_type),
            content_encoding: short("content_encoding", &raw.content_encoding),
            correlation_id: short("correlation_id", &raw.correlation_id),
            reply_to: short("reply_to", &raw.reply_to),
            message_id: short("message_id", &raw.message_id),
            kind: short("type", &raw.kind),
            user_id: short("user_id", &raw.user_id),
            app_id: short("app_id", &raw.app_id),
            ..PropertyPlan::default()
        };
        plan.persistent = raw.persistent.as_ref().and_then(|varying| self.dynamic("persistent", varying));
        plan.priority = raw.priority.as_ref().and_then(|varying| self.dynamic("priority", varying));
        plan.expiration = raw.expiration.as_ref().and_then(|varying| self.dynamic("expiration", varying));
        plan.timestamp = raw.timestamp.as_ref().and_then(|varying| self.dynamic("timestamp", varying));
        self.check_literals(&plan);
        for (name, header) in raw.headers.iter().flat_map(|headers| &headers.0) {
            if let Some(header) = self.header(name, header) {
                plan.headers.push((name.clone(), header));
            }
        }
        plan
    }

    fn check_literals(&mut self, plan: &PropertyPlan) {
        if let Some(Dynamic::Literal(text)) = &plan.expiration {
            // RabbitMQ closes the channel over a TTL of 2³² ms and more. What is not a duration was refused by the walk.
            let too_long = warren_engine::span::parse_span(text)
                .is_ok_and(|span| u32::try_from(span.as_millis()).is_err());
            if too_long {
                self.faults.push(
                    Fault::new(
                        codes::INVALID_VALUE,
                        self.place("expiration"),
                        "`expiration` takes at most 49 days",
                    )
                    .remedy("write a shorter span, or leave it out: messages then wait for ever"),
                );
            }
        }
        if let Some(Dynamic::Literal(text)) = &plan.timestamp
            && text.parse::<u64>().is_err()
            && text.parse::<Timestamp>().is_err()
        {
            self.faults.push(
                Fault::new(
                    codes::INVALID_VALUE,
                    self.place("timestamp"),
                    "`timestamp` takes a point in time",
                )
                .remedy("write it as `2026-01-31T12:00:00Z`, or as seconds since 1970"),
            );
        }
    }

    fn header(&mut self, name: &str, header: &Header) -> Option<HeaderPlan> {
        let (path, entry) =
            (format!("headers.{name}"), self.node.get("headers").and_then(|node| node.entry(name))?);
        if name.is_empty() || name.len() > SHORT_BYTES_MAX {
            let message =
                format!("a header's name has 1 to {SHORT_BYTES_MAX} bytes, and this has {}", name.len());
            self.faults
                .push(Fault::new(codes::VALUE_TOO_LONG, entry.span, message).remedy("choose another name"));
        }
        match header {
            Header::Literal(value) => Some(HeaderPlan::Literal(value.clone())),
            Header::Column(column, kind) => {
                self.check_column(column, entry.value.get("column").map_or(entry.span, |node| node.span));
                Some(HeaderPlan::Column { column: column.clone(), kind: kind.map(header_type) })
            }
            Header::Template(text, kind) => {
                let node = entry.value.get("template")?;
                let subject = format!("{}.{path}.template", self.path);
                let template =
                    self.templates().template(text, Format::Text, &subject, Origin::Value(node))?;
                self.check_reads(template.reads(), node.span);
                Some(HeaderPlan::Template { template: Box::new(template), kind: kind.map(header_type) })
            }
        }
    }

    /// A text that AMQP sends as a short string.
    fn short(&mut self, key: &str, varying: &Varying<String>) -> Option<Dynamic> {
        let dynamic = self.dynamic(key, varying)?;
        if let Dynamic::Literal(text) = &dynamic
            && text.len() > SHORT_BYTES_MAX
        {
            let message = format!("`{key}` has {} bytes; AMQP allows {SHORT_BYTES_MAX}", text.len());
            self.faults.push(
                Fault::new(codes::VALUE_TOO_LONG, self.place(key), message).remedy("write a shorter text"),
            );
            return None;
        }
        Some(dynamic)
    }

    pub(super) fn dynamic<T>(&mut self, key: &str, varying: &Varying<T>) -> Option<Dynamic> {
        match &varying.value {
            Value::Literal(text) => Some(Dynamic::Literal(text.clone())),
            Value::Column(column) => {
                self.check_column(column, self.place(key));
                Some(Dynamic::Column(column.clone()))
            }
            Value::Template(text) => {
                let node = self.node.get(key)?.get("template")?;
                let subject = format!("{}.{key}.template", self.path);
                let template =
                    self.templates().template(text, Format::Text, &subject, Origin::Value(node))?;
                self.check_reads(template.reads(), node.span);
                Some(Dynamic::Template(Box::new(template)))
            }
        }
    }

    /// A column must be there for every row it is read of: a removed row that was not kept has only its key.
    pub(super) fn check_column(&mut self, column: &str, span: Span) {
        if column.is_empty() {
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, span, "this is the name of no column")
                    .remedy("name a column of the model"),
            );
        } else if self.rows.loses_columns() && !self.rows.key.iter().any(|key| key == column) {
            self.faults.push(not_kept(&format!("the column `{column}`"), span));
        }
    }

    pub(super) fn check_reads(&mut self, reads: &Reads, span: Span) {
        if !self.rows.kept && self.rows.ops.contains(&Op::Changed) && (reads.previous || reads.changed) {
            let what = if reads.previous { "`previous`" } else { "`changed`" };
            self.faults.push(
                Fault::new(
                    codes::CONFLICTING_KEYS,
                    span,
                    format!("this reads {what}, and `keep_rows` is false"),
                )
                .remedy(
                    "remove `keep_rows: false`: without the rows last sent nothing can be compared with them",
                ),
            );
        }
        if let (true, Columns::Set(columns)) = (self.rows.loses_columns(), &reads.columns)
            && let Some(column) = columns.iter().find(|column| !self.rows.key.contains(column))
        {
            self.faults.push(not_kept(&format!("the column `{column}`"), span));
        }
    }

    pub(super) fn templates(&mut self) -> Templates<'_> {
        Templates { files: self.files, faults: self.faults, partials: self.partials, lax: false }
    }

    /// The value of a key, or the key where the value is a map.
    pub(super) fn place(&self, key: &str) -> Span {
        self.node.entry(key).map_or(self.key, |entry| match entry.value.scalar() {
            Some(scalar) if !scalar.text.is_empty() => entry.value.span,
            Some(_) | None => entry.span,
        })
    }
}

impl KeptRows<'_> {
    fn loses_columns(&self) -> bool {
        !self.kept && self.ops.contains(&Op::Removed)
    }
}

fn not_kept(what: &str, span: Span) -> Fault {
    Fault::new(
        codes::CONFLICTING_KEYS,
        span,
        format!("this reads {what} of removed rows, which have only their key because `keep_rows` is false"),
    )
    .remedy(
        "remove `keep_rows: false`, or give `removed` a message of its own: `on: {removed: {message: …}}`",
    )
}

fn header_type(kind: HeaderKind) -> HeaderType {
    match kind {
        HeaderKind::Text => HeaderType::Text,
        HeaderKind::Int => HeaderType::Int,
        HeaderKind::Float => HeaderType::Float,
        HeaderKind::Bool => HeaderType::Bool,
        HeaderKind::Timestamp => HeaderType::Timestamp,
    }
}
