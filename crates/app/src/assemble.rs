//! From a checked configuration to running parts: the one place that builds connectors and stores.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use warren_connectors::BrokerConfig;
use warren_connectors::kit::random;
use warren_connectors::kit::tls::TlsSettings;
use warren_engine::codes;
use warren_engine::consume::worker::ConsumePorts;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::hub::HubPorts;
use warren_engine::hub::delivering::DeliveringPorts;
use warren_engine::hub::ports::Users;
use warren_engine::hub::resource::DEFAULT_VHOST;
use warren_engine::hub::settings::HubSettings;
use warren_engine::pipeline::document::BodyForm;
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::pipeline::{Outside, Pipeline};
use warren_engine::ports::{
    Baseline, Broker, CommandRunner, Handler, HttpCaller, Leases, Records, Source, SqlExecutor,
};
use warren_engine::sync::plan::SyncPlan;
use warren_engine::sync::run::Ports;
use warren_store::baseline::{BaselineOptions, FileBaseline};
use warren_store::in_flight::FileInFlight;
use warren_store::messages::FileMessages;
use warren_store::parking::FileParking;
use warren_store::state::{Retention, SqliteState, State, SystemClock};
use warren_store::subscriptions::FileSubscriptions;
use warren_store::webhook_ids::FileWebhookIds;

use warren_config::Project;
use warren_config::consume::ProjectTrigger;
use warren_config::hub::ProjectHub;

/// A configuration with its state open.
pub struct Assembly<'p> {
    project: &'p Project,
    state: Arc<dyn State>,
}

/// The parts of one sync.
pub struct Parts {
    /// What to do.
    pub plan: Arc<SyncPlan>,
    /// With whom.
    pub ports: Ports,
    /// What is remembered of it.
    pub state: Arc<dyn State>,
    /// A hash of the sync's configuration, for stored plans.
    pub digest: u128,
}

impl<'p> Assembly<'p> {
    /// Opens the state of a configuration.
    ///
    /// # Errors
    /// The state cannot be used.
    pub fn open(project: &'p Project) -> Result<Assembly<'p>, Failure> {
        Ok(Assembly { project, state: state(project)? })
    }

    /// What is remembered.
    pub fn state(&self) -> &Arc<dyn State> {
        &self.state
    }

    /// Builds a sync of the configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// A connection's settings cannot be used, such as a certificate that cannot be read.
    pub fn sync(&self, name: &str) -> Result<Parts, Failure> {
        let sync = self.project.syncs.get(name).ok_or_else(|| unknown("sync", name))?;
        let baseline: Arc<dyn Baseline> = Arc::new(baseline(self.project, name));
        let records: Arc<dyn Records> = self.state.clone();
        let leases: Arc<dyn Leases> = self.state.clone();
        let ports = Ports {
            source: source(self.project, &sync.source)?,
            broker: broker(self.project, &sync.broker)?,
            baseline,
            records,
            leases,
            clock: Arc::new(SystemClock),
        };
        Ok(Parts { plan: sync.plan.clone(), ports, state: self.state.clone(), digest: sync.digest })
    }
}

/// The baseline of a sync. Nothing is read yet.
pub fn baseline(project: &Project, name: &str) -> FileBaseline {
    FileBaseline::open(baselines(project).join(folder_name(name)), BaselineOptions::default())
}

fn baselines(project: &Project) -> PathBuf {
    project.state.folder.join("baselines")
}

/// A baseline whose sync is gone from the configuration, next to a sync of the same key that has none: perhaps it was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The sync that begins anew.
    pub sync: String,
    /// The syncs that are gone, by name.
    pub gone: Vec<String>,
    /// The folder of the baselines.
    pub folder: PathBuf,
}

impl Orphan {
    /// As a finding about the sync that begins anew.
    pub fn finding(&self) -> Finding {
        let Orphan { sync, gone, folder } = self;
        let names = gone.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (has, is) = if gone.len() == 1 { ("has a baseline", "is") } else { ("have baselines", "are") };
        let what = format!(
            "{names} {has} and {is} gone from the configuration; `{sync}` begins anew with a first run"
        );
        let renames = gone.iter().map(|name| {
            format!(
                "`mv {}/{} {}/{}`",
                folder.display(),
                folder_name(name),
                folder.display(),
                folder_name(sync)
            )
        });
        let remedy = format!(
            "if `{sync}` was renamed, rename the folder of its baseline: {}; otherwise continue",
            renames.collect::<Vec<_>>().join(" or ")
        );
        Finding::warning(codes::ORPHANED_BASELINE, format!("syncs.{sync}"), what)
            .detail(format!("they have the same key, and every row of `{sync}` would be sent as added"))
            .remedy(remedy)
    }
}

/// Baselines of syncs that are gone, each with the sync of the same key that would begin anew.
///
/// # Errors
/// The folder of the baselines cannot be read. A baseline that is damaged is passed over: who uses it finds out.
pub async fn orphans(project: &Project) -> Result<Vec<Orphan>, Failure> {
    let folder = baselines(project);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let what = format!("read the folder {}", folder.display());
            return Err(Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
                .detail(error.to_string())
                .remedy("let Warren read and write its state folder"));
        }
    };
    let mut gone = Vec::new();
    for entry in entries.flatten() {
        let Ok(file) = entry.file_name().into_string() else { continue };
        if project.syncs.keys().any(|name| folder_name(name) == file) {
            continue;
        }
        let baseline = FileBaseline::open(entry.path(), BaselineOptions::default());
        if let Ok(Some(info)) = baseline.info().await
            && !info.key.is_empty()
        {
            gone.push((name_of(&file), info.key));
        }
    }
    gone.sort();
    let mut found = Vec::new();
    for (sync, of) in &project.syncs {
        if gone.is_empty() || !matches!(baseline(project, sync).info().await, Ok(None)) {
            continue;
        }
        let key = &of.plan.model.key;
        let alike = gone.iter().filter(|(_, other)| other == key).map(|(name, _)| name.clone());
        let alike: Vec<String> = alike.collect();
        if !alike.is_empty() {
            found.push(Orphan { sync: sync.clone(), gone: alike, folder: folder.clone() });
        }
    }
    Ok(found)
}

/// The name that [`folder_name`] made a folder's of.
fn name_of(folder: &str) -> String {
    percent_encoding::percent_decode_str(folder).decode_utf8_lossy().into_owned()
}

/// A name as a folder's: letters, digits, `-` and `_` as they are, all else in hexadecimal.
pub fn folder_name(name: &str) -> String {
    let mut folder = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => folder.push(char::from(byte)),
            other => folder.extend(format!("%{other:02x}").chars()),
        }
    }
    folder
}

/// Opens the state of a configuration.
///
/// # Errors
/// It cannot be written, is damaged, or belongs to a newer version.
pub fn state(project: &Project) -> Result<Arc<dyn State>, Failure> {
    Ok(Arc::new(SqliteState::open(&project.state.folder, retention(project))?))
}

fn retention(project: &Project) -> Retention {
    let state = &project.state;
    Retention { age: state.record_keep, size: state.record_size, ..Retention::default() }
}

/// Builds a source. Connects to nothing yet.
///
/// # Errors
/// Its settings cannot be used.
pub fn source(project: &Project, name: &str) -> Result<Arc<dyn Source>, Failure> {
    project.sources.get(name).ok_or_else(|| unknown("source", name))?.open(name)
}

/// Builds a broker. Connects to nothing yet.
///
/// # Errors
/// Its settings cannot be used.
pub fn broker(project: &Project, name: &str) -> Result<Arc<dyn Broker>, Failure> {
    project.brokers.get(name).ok_or_else(|| unknown("broker", name))?.open(name, &project.state.folder)
}

/// The names of all brokers, or the one asked for.
///
/// # Errors
/// There is none of that name.
pub fn broker_names(project: &Project, only: Option<&str>) -> Result<Vec<String>, Failure> {
    match only {
        None => Ok(project.brokers.keys().cloned().collect()),
        Some(name) if project.brokers.contains_key(name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(unknown("broker", name)),
    }
}

/// What all triggers of one process share.
pub struct Consuming {
    records: Arc<FileMessages>,
    parking: Arc<FileParking>,
    callers: Callers,
    brokers: Mutex<BTreeMap<String, Arc<dyn Broker>>>,
}

impl Consuming {
    /// Opens the record of messages and the parking lot.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(project: &Project) -> Result<Consuming, Failure> {
        let state = &project.state;
        let retention = retention(project);
        let records = FileMessages::open(&state.folder, retention, Arc::new(SystemClock))?;
        Ok(Consuming {
            records: Arc::new(records),
            parking: Arc::new(FileParking::open(&state.folder)?),
            callers: Callers::new()?,
            brokers: Mutex::default(),
        })
    }

    /// A broker, the same for all who use it.
    fn broker(&self, project: &Project, name: &str) -> Result<Arc<dyn Broker>, Failure> {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = brokers.get(name) {
            return Ok(broker.clone());
        }
        let opened = broker(project, name)?;
        brokers.insert(name.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Lets all use a broker that is open already.
    fn adopt(&self, name: &str, broker: Arc<dyn Broker>) {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.entry(name.to_owned()).or_insert(broker);
    }

    /// Builds a trigger. Connects to nothing yet. Whoever calls holds the trigger's lease.
    ///
    /// # Errors
    /// A connection's settings cannot be used, or the state cannot be written.
    pub fn trigger(&self, project: &Project, name: &str) -> Result<ConsumePorts, Failure> {
        let trigger = project.triggers.get(name).ok_or_else(|| unknown("trigger", name))?;
        let broker = self.broker(project, &trigger.broker)?;
        let folder = project.state.folder.join("inflight");
        Ok(ConsumePorts {
            handler: self.handler(project, trigger)?,
            broker,
            records: self.records.clone(),
            parking: self.parking.clone(),
            in_flight: Arc::new(FileInFlight::open(&folder, &folder_name(name))?),
            clock: Arc::new(SystemClock),
            dice: Arc::new(fastrand::f64),
        })
    }

    /// What is done with a trigger's messages: its steps, with what they reach.
    fn handler(&self, project: &Project, trigger: &ProjectTrigger) -> Result<Arc<dyn Handler>, Failure> {
        let form = if trigger.plan.binary { BodyForm::Base64 } else { BodyForm::Text };
        let mut open = |name: &str| self.broker(project, name);
        let plan = &trigger.pipeline;
        Ok(Arc::new(pipeline(project, plan, form, &trigger.broker, &self.callers, &mut open)?))
    }

    /// Closes all brokers.
    pub async fn close(&self) {
        let brokers = std::mem::take(&mut *self.brokers.lock().unwrap_or_else(PoisonError::into_inner));
        for broker in brokers.into_values() {
            broker.close().await;
        }
    }
}

/// The parts of the hub.
pub struct HubParts {
    /// What the operator decided.
    pub settings: HubSettings,
    /// With whom it works.
    pub ports: HubPorts,
    /// Who may do what.
    pub users: Arc<dyn Users>,
    /// With whom its consumers work.
    pub delivering: DeliveringPorts,
}

/// Builds the hub of a configuration. Connects to nothing yet. Whoever calls holds the lease of the hub.
///
/// # Errors
/// There is none, the broker's settings cannot be used, or the state cannot be written.
pub async fn hub(project: &Project, consuming: &Consuming) -> Result<HubParts, Failure> {
    let hub = project.hub.as_ref().ok_or_else(|| Failure::internal("build a hub that is not configured"))?;
    let config = project.brokers.get(&hub.broker).ok_or_else(|| unknown("broker", &hub.broker))?;
    let folder = &project.state.folder;
    let estate = config.estate(&hub.broker, folder)?;
    if let BrokerConfig::Embedded(_) = config {
        // One opening of the file for all.
        consuming.adopt(&hub.broker, estate.broker(DEFAULT_VHOST).await?);
    }
    // The first call says whether the system has any; then it always has.
    random::fill(&mut [0; 1])?;
    let random = |bytes: &mut [u8]| random::fill(bytes).expect("the system gave random numbers a moment ago");
    Ok(HubParts {
        settings: hub.settings.clone(),
        ports: HubPorts {
            estate,
            store: Arc::new(FileSubscriptions::open(folder)?),
            http: warren_connectors::http::callbacks(&hub.client, &hub.clients)?,
            clock: Arc::new(SystemClock),
            random: Arc::new(random),
        },
        users: hub_users(hub, config)?,
        delivering: DeliveringPorts {
            records: consuming.records.clone(),
            parking: consuming.parking.clone(),
            // `folder_name` gives no trigger this name.
            in_flight: Arc::new(FileInFlight::open(&folder.join("inflight"), "%hub")?),
            ids: Arc::new(FileWebhookIds::open(&folder.join("inflight"))?),
            dice: Arc::new(fastrand::f64),
        },
    })
}

/// The users of a hub. Nothing is asked yet.
///
/// # Errors
/// Their settings cannot be used.
pub fn hub_users(hub: &ProjectHub, config: &BrokerConfig) -> Result<Arc<dyn Users>, Failure> {
    match &hub.users {
        Some(users) => warren_connectors::kit::users::configured(users),
        None => config.users(&hub.broker),
    }
}

/// What calls and runs things for the steps of all pipelines; connections are shared.
#[derive(Clone)]
pub struct Callers {
    http: Arc<dyn HttpCaller>,
    commands: Arc<dyn CommandRunner>,
    /// By source, made when the first pipeline asks for it: each has its connections, which all pipelines share.
    databases: Arc<Mutex<BTreeMap<String, Arc<dyn SqlExecutor>>>>,
}

impl Callers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The certificates that the system trusts cannot be read.
    pub fn new() -> Result<Callers, Failure> {
        let http = warren_connectors::http::caller(&TlsSettings::default())?;
        Ok(Callers { http, commands: warren_connectors::exec::runner(), databases: Arc::default() })
    }

    fn database(&self, project: &Project, name: &str) -> Result<Arc<dyn SqlExecutor>, Failure> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = databases.get(name) {
            return Ok(database.clone());
        }
        let source = project.sources.get(name).ok_or_else(|| unknown("source", name))?;
        let database = source.executor(name)?;
        databases.insert(name.to_owned(), database.clone());
        Ok(database)
    }
}

/// Gives a broker by its name.
pub type OpenBroker<'o> = dyn FnMut(&str) -> Result<Arc<dyn Broker>, Failure> + 'o;

/// Builds a pipeline for the messages of a broker. Connects to nothing yet; `open` gives the brokers by name, so that those that are
/// open already are used.
///
/// # Errors
/// A broker's or source's settings cannot be used.
pub fn pipeline(
    project: &Project,
    plan: &Arc<PipelinePlan>,
    form: BodyForm,
    origin: &str,
    callers: &Callers,
    open: &mut OpenBroker<'_>,
) -> Result<Pipeline, Failure> {
    let mut brokers = BTreeMap::new();
    for name in plan.brokers() {
        brokers.insert(name.to_owned(), open(name)?);
    }
    let mut databases = BTreeMap::new();
    for name in plan.sources() {
        databases.insert(name.to_owned(), callers.database(project, name)?);
    }
    let origin = if plan.replies() { Some(open(origin)?) } else { None };
    let Callers { http, commands, .. } = callers.clone();
    Pipeline::new(plan.clone(), Outside { http, commands, brokers, databases, origin }, form)
}

fn unknown(what: &str, name: &str) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        codes::UNKNOWN_NAME,
        format!("the configuration has no {what} `{name}`"),
    )
}
