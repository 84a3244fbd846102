//! A configuration that was read whole: what there is, ready to be built, and where each thing stands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use warren_connectors::kit::guard::Allowed;
use warren_connectors::{BrokerConfig, SourceConfig};
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::finding::Finding;
use warren_engine::model::Model;
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::size::ByteSize;
use warren_engine::sync::plan::SyncPlan;

use super::consume::ProjectTrigger;
use super::faults::{Fault, Faults};
use super::hub::ProjectHub;
use super::places::Places;
use super::raw::section::RawServerTls;
use super::template::FILLED_REMEDY;
use super::text::{Files, Place, Span};

/// A checked configuration.
#[derive(Debug)]
pub struct Project {
    /// The folder of the configuration; paths in it are relative to the file they stand in.
    pub root: PathBuf,
    /// Where rows come from, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Where messages go, by name.
    pub brokers: BTreeMap<String, BrokerConfig>,
    /// Queries with their keys, by name.
    pub models: BTreeMap<String, ProjectModel>,
    /// What is watched and told, by name.
    pub syncs: BTreeMap<String, ProjectSync>,
    /// What is done with messages, by name.
    pub pipelines: BTreeMap<String, Arc<PipelinePlan>>,
    /// Queues that are consumed, by name.
    pub triggers: BTreeMap<String, ProjectTrigger>,
    /// What is remembered, and where.
    pub state: StateSettings,
    /// HTTP in front of a broker.
    pub hub: Option<ProjectHub>,
    /// Where the hub, metrics and health are served.
    pub listen: SocketAddr,
    /// Our certificate there.
    pub listen_tls: Option<RawServerTls>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Allowed,
    /// What works and may hurt.
    pub warnings: Faults,
    pub(super) files: Files,
    pub(super) places: Places,
    /// Stretches of the texts that hold secrets.
    pub(super) secrets: Vec<Span>,
}

/// A model with the name of its source.
#[derive(Debug, Clone)]
pub struct ProjectModel {
    /// The source it is a query over; one of [`Project::sources`].
    pub source: String,
    /// The model.
    pub model: Arc<Model>,
}

/// A sync with the names of what it connects.
#[derive(Debug, Clone)]
pub struct ProjectSync {
    /// The source of its model; one of [`Project::sources`].
    pub source: String,
    /// The broker that hears of it; one of [`Project::brokers`].
    pub broker: String,
    /// The sync, compiled.
    pub plan: Arc<SyncPlan>,
    /// A hash of all that decides what it sends, for stored plans.
    pub digest: u128,
}

/// What is remembered, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSettings {
    /// The folder. It need not exist yet.
    pub folder: PathBuf,
    /// How long the record of rows is kept.
    pub record_keep: Duration,
    /// The most disk the record of rows takes.
    pub record_size: ByteSize,
    /// How long a stop waits for messages that are being handled.
    pub shutdown_grace: Duration,
    /// Whether the bodies of messages are kept in the record.
    pub record_bodies: bool,
}

impl Project {
    /// Where a subject such as `syncs.customers.queue` stands; the nearest part of the configuration that it is in, if it is not
    /// written down itself.
    pub fn place(&self, subject: &str) -> Option<Place> {
        self.places.find(subject).map(|span| self.files.place(span))
    }

    /// Where a line and column (both from 1) of a template stand in a file, if that can be told exactly. The template is named as in
    /// its errors: by its subject, such as `syncs.customers.message.template`, or as a partial.
    pub fn place_within(&self, template: &str, line: usize, column: usize) -> Option<Place> {
        let found = self.places.find_within(&self.files, template, line, column)?;
        found.exact.then(|| self.files.place(found.span))
    }

    /// A finding of a later check, with its place and its line.
    pub fn fault_of_finding(&self, finding: &Finding) -> Fault {
        let fault = Fault {
            severity: finding.severity,
            span: self.places.find(&finding.subject),
            detail: finding.detail.clone(),
            remedy: finding.remedy.clone(),
            ..Fault::nowhere(finding.code, finding.message.clone())
        };
        let Some(within) = &finding.within else { return fault };
        match self.places.find_within(&self.files, &within.template, within.line, within.column) {
            None => fault,
            // What the finding says may quote the template.
            Some(found) if found.filled => Fault {
                span: Some(found.span),
                detail: None,
                remedy: Some(FILLED_REMEDY.to_owned()),
                message: "the template has an unknown name here".to_owned(),
                ..fault
            },
            Some(found) if found.exact => {
                let prefix = format!("line {}, column {} of the template: ", within.line, within.column);
                let message = fault.message.strip_prefix(&prefix).unwrap_or(&fault.message).to_owned();
                // The line that the detail holds is shown from the file.
                Fault { span: Some(found.span), detail: None, message, ..fault }
            }
            Some(found) => Fault { span: Some(found.span), ..fault },
        }
    }

    /// A failure that a part of the configuration is to blame for, with its place and its line.
    pub fn fault_of_failure(&self, subject: &str, failure: &Failure) -> Fault {
        self.fault_of_finding(&Finding::from_failure(subject, failure))
    }

    /// Faults found later, to be shown as those of reading are.
    pub fn faults(&self, faults: Vec<Fault>) -> Faults {
        Faults::new(faults, self.files.clone(), self.secrets.clone())
    }

    /// Findings of later checks, to be shown as faults are. Not all of them are faults of the configuration.
    pub fn show(&self, findings: &[Finding]) -> Faults {
        self.faults(findings.iter().map(|finding| self.fault_of_finding(finding)).collect()).uncounted()
    }

    /// The sync of a name.
    ///
    /// # Errors
    /// There is none; the fault names the nearest.
    pub fn sync(&self, name: &str) -> Result<&ProjectSync, Box<Fault>> {
        self.syncs.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.syncs.keys().map(String::as_str).collect();
            Box::new(
                Fault::nowhere(codes::UNKNOWN_NAME, format!("there is no sync `{name}`"))
                    .remedy(super::faults::name_remedy(name, known, "the syncs are")),
            )
        })
    }
}
