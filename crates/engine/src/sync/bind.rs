//! A plan against the columns its model really has.

use std::collections::BTreeSet;

use warren_liquid::{Columns, Names, Reads};

use crate::codes;
use crate::finding::{Finding, Severity, Within};
use crate::model::Schema;
use crate::ports::{Compare, DiffSpec};
use crate::sync::plan::{
    AttributeSource, BodyPlan, CompareChoice, Deduplication, Dynamic, HeaderPlan, PropertyPlan, RoutePlan,
    SqsPlan, SyncPlan, Trigger,
};
use crate::sync::view::GLOBALS;

/// A plan that fits its model's columns.
#[derive(Debug, Clone)]
pub struct Bound {
    /// What the diff is asked.
    pub spec: DiffSpec,
    /// The columns that count, sorted.
    pub compared: Vec<String>,
    /// What a user should know about the columns that count.
    pub findings: Vec<Finding>,
}

/// Fits a plan to the columns of its model.
///
/// # Errors
/// Every place that names a column the model does not have.
pub fn bind(plan: &SyncPlan, schema: &Schema) -> Result<Bound, Vec<Finding>> {
    let mut columns = Gathering {
        schema,
        sync: &plan.name,
        used: BTreeSet::new(),
        all: false,
        previous: false,
        findings: Vec::new(),
    };
    for name in &plan.model.key {
        columns.known(&format!("models.{}.primary_key", plan.model.name), name);
    }
    for name in &plan.ignore {
        columns.known(&format!("syncs.{}.ignore", plan.name), name);
    }
    if let CompareChoice::These(names) = &plan.compare {
        for name in names {
            columns.known(&format!("syncs.{}.compare", plan.name), name);
        }
    }
    for (op, trigger) in plan.triggers() {
        columns.trigger(&format!("on.{op}"), trigger);
    }
    if !columns.findings.is_empty() {
        return Err(once(columns.findings));
    }
    let used: BTreeSet<String> = columns.used.difference(&plan.ignore).cloned().collect();
    let is_key = |name: &str| plan.model.key.iter().any(|key| key == name);
    // A message that has only the key says "look at this row": every column may be what the receiver looks at.
    let thin = plan.compare == CompareChoice::Used
        && !columns.all
        && plan.changed.is_some()
        && used.iter().all(|name| is_key(name));
    let compare = match &plan.compare {
        CompareChoice::Used if !columns.all && !thin => Compare::These(used),
        CompareChoice::Used | CompareChoice::All => Compare::AllBut(plan.ignore.clone()),
        CompareChoice::These(names) => Compare::These(names.difference(&plan.ignore).cloned().collect()),
    };
    let mut compared: Vec<String> = match &compare {
        Compare::These(names) => names.iter().cloned().collect(),
        Compare::AllBut(ignored) => {
            schema.names().filter(|name| !ignored.contains(*name)).map(str::to_owned).collect()
        }
    };
    compared.sort_unstable();
    let mut findings = Vec::new();
    if plan.changed.is_some() && schema.names().any(|name| !is_key(name)) {
        if compared.iter().all(|name| is_key(name)) {
            findings.push(never_changes(plan));
        } else if thin {
            findings.push(compares_all(plan));
        }
    }
    let spec = DiffSpec {
        key: plan.model.key.clone(),
        compare,
        keep_rows: plan.keep_rows,
        full: false,
        previous: columns.previous,
    };
    Ok(Bound { spec, compared, findings })
}

/// Only key columns count, so no row can be found changed.
fn never_changes(plan: &SyncPlan) -> Finding {
    let what = "only key columns count, so changed rows are never sent";
    Finding::warning(codes::KEY_COLUMNS_ONLY, format!("syncs.{}.compare", plan.name), what).remedy(
        "compare other columns too (`compare: all`, or a list), or leave `changed` out of `on` if only rows added and \
         removed are wanted",
    )
}

/// The message reads only key columns, so all columns count.
fn compares_all(plan: &SyncPlan) -> Finding {
    let what = "the message reads only key columns, so all columns are compared: a row is sent when any of them changes";
    let finding = Finding::warning(codes::KEY_COLUMNS_ONLY, format!("syncs.{}.compare", plan.name), what);
    Finding { severity: Severity::Note, ..finding }.remedy(
        "write `compare: all` to confirm, list the columns that count, or leave `changed` out of `on` if only rows added \
         and removed are wanted",
    )
}

/// Findings without those that are the same of another op: what is said once for all ops is wrong once.
fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let below_op = |subject: &str| {
        let below = subject.split_once(".on.").and_then(|(_, rest)| rest.split_once('.'));
        below.map_or(subject, |(_, rest)| rest).to_owned()
    };
    let same = |one: &Finding, other: &Finding| {
        (one.code, &one.message, &one.within) == (other.code, &other.message, &other.within)
            && below_op(&one.subject) == below_op(&other.subject)
    };
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        if !kept.iter().any(|other| same(&finding, other)) {
            kept.push(finding);
        }
    }
    kept
}

/// Gathers the columns a sync uses.
struct Gathering<'s> {
    schema: &'s Schema,
    sync: &'s str,
    used: BTreeSet<String>,
    all: bool,
    previous: bool,
    findings: Vec<Finding>,
}

impl Gathering<'_> {
    fn trigger(&mut self, place: &str, trigger: &Trigger) {
        if let Some(when) = &trigger.when {
            let faults = when.check(&names(&self.columns()));
            self.template(&format!("{place}.when"), faults, when.reads());
        }
        match &trigger.route {
            RoutePlan::Queue(queue) => self.dynamic(&format!("{place}.queue"), queue),
            RoutePlan::Exchange { exchange, routing_key } => {
                self.dynamic(&format!("{place}.exchange"), exchange);
                self.dynamic(&format!("{place}.routing_key"), routing_key);
            }
        }
        match &trigger.body {
            BodyPlan::Template { template, .. } => {
                let faults = template.check(&names(&self.columns()));
                self.template(&format!("{place}.message.template"), faults, template.reads());
            }
            BodyPlan::Column { column, .. } => self.column(&format!("{place}.message.column"), column),
            BodyPlan::Fields(fields) => {
                for (name, column) in fields {
                    self.column(&format!("{place}.message.fields.{name}"), column);
                }
            }
            BodyPlan::AllFields => self.all = true,
        }
        self.properties(place, &trigger.properties);
    }

    fn properties(&mut self, place: &str, plan: &PropertyPlan) {
        let named = [
            ("content_type", &plan.content_type),
            ("content_encoding", &plan.content_encoding),
            ("persistent", &plan.persistent),
            ("priority", &plan.priority),
            ("correlation_id", &plan.correlation_id),
            ("reply_to", &plan.reply_to),
            ("expiration", &plan.expiration),
            ("message_id", &plan.message_id),
            ("timestamp", &plan.timestamp),
            ("type", &plan.kind),
            ("user_id", &plan.user_id),
            ("app_id", &plan.app_id),
        ];
        for (name, dynamic) in named {
            if let Some(dynamic) = dynamic {
                self.dynamic(&format!("{place}.{name}"), dynamic);
            }
        }
        if let Some(sqs) = &plan.sqs {
            self.sqs(place, sqs);
        }
        for (name, header) in &plan.headers {
            let place = format!("{place}.headers.{name}");
            match header {
                HeaderPlan::Literal(_) => {}
                HeaderPlan::Column { column, .. } => self.column(&place, column),
                HeaderPlan::Template { template, .. } => {
                    let faults = template.check(&names(&self.columns()));
                    self.template(&place, faults, template.reads());
                }
            }
        }
    }

    fn sqs(&mut self, place: &str, plan: &SqsPlan) {
        let deduplication = match &plan.deduplication_id {
            Deduplication::ChangeId | Deduplication::Content => None,
            Deduplication::By(dynamic) => Some(dynamic),
        };
        let named = [
            ("group_id", plan.group_id.as_ref()),
            ("deduplication_id", deduplication),
            ("delay_seconds", plan.delay_seconds.as_ref()),
        ];
        for (name, dynamic) in named {
            if let Some(dynamic) = dynamic {
                self.dynamic(&format!("{place}.{name}"), dynamic);
            }
        }
        for (name, attribute) in &plan.attributes {
            let place = format!("{place}.attributes.{name}");
            match &attribute.value {
                AttributeSource::Literal(_) => {}
                AttributeSource::Column(column) => self.column(&place, column),
                AttributeSource::Template(template) => {
                    let faults = template.check(&names(&self.columns()));
                    self.template(&place, faults, template.reads());
                }
            }
        }
    }

    fn dynamic(&mut self, place: &str, dynamic: &Dynamic) {
        match dynamic {
            Dynamic::Literal(_) => {}
            Dynamic::Column(column) => self.column(place, column),
            Dynamic::Template(template) => {
                let faults = template.check(&names(&self.columns()));
                self.template(place, faults, template.reads());
            }
        }
    }

    fn template(&mut self, place: &str, faults: Vec<warren_liquid::Error>, reads: &Reads) {
        for fault in faults {
            let mut finding = Finding::error(
                codes::UNKNOWN_COLUMN,
                self.subject(place),
                format!("line {}, column {} of the template: {}", fault.line, fault.column, fault.message),
            )
            .within(Within { template: fault.name.to_string(), line: fault.line, column: fault.column })
            .detail(fault.source_line.trim().to_owned());
            finding.remedy = fault.hint;
            self.findings.push(finding);
        }
        self.previous |= reads.previous || reads.changed;
        match &reads.columns {
            Columns::All => self.all = true,
            // A lenient template may name columns that are not there.
            Columns::Set(names) => {
                self.used.extend(names.iter().filter(|name| self.schema.index_of(name).is_some()).cloned());
            }
        }
    }

    fn column(&mut self, place: &str, name: &str) {
        let subject = self.subject(place);
        self.known(&subject, name);
        self.used.insert(name.to_owned());
    }

    fn known(&mut self, subject: &str, name: &str) {
        if self.schema.index_of(name).is_some() {
            return;
        }
        let columns: Vec<&str> = self.schema.names().collect();
        let remedy = match crate::near::nearest(name, columns.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the model's columns are: {}", columns.join(", ")),
        };
        self.findings.push(
            Finding::error(codes::UNKNOWN_COLUMN, subject, format!("the model has no column `{name}`"))
                .remedy(remedy),
        );
    }

    fn subject(&self, place: &str) -> String {
        format!("syncs.{}.{place}", self.sync)
    }

    fn columns(&self) -> Vec<&str> {
        self.schema.names().collect()
    }
}

fn names<'n>(columns: &'n [&'n str]) -> Names<'n> {
    Names { tops: &GLOBALS, columns }
}
