//! From files to a project, section by section: every section is read, whatever is wrong in the others.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use warren_connectors::kit::guard::Allowed;
use warren_connectors::kit::setting::Misfit;
use warren_connectors::{BrokerConfig, SourceConfig};
use warren_engine::codes;
use warren_engine::finding::Severity;
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::size::ByteSize;

use super::consume::{ConsumeReader, ProjectTrigger};
use super::de::{self, At};
use super::faults::{Fault, Faults};
use super::fill::{Environment, fill};
use super::gather::gather;
use super::hidden::{self, Public};
use super::hub::{HubReader, ProjectHub};
use super::model::{ModelReader, Partials};
use super::pipeline::PipelineReader;
use super::places::Places;
use super::plan::{Compiler, Known};
use super::project::{Project, ProjectModel, ProjectSync, StateSettings};
use super::raw::section::{RawListener, RawServerTls, RawState};
use super::renewal::Written;
use super::schema::schema;
use super::text::{Files, Span};
use super::tree::{Entry, Node, NodeKind};
use super::walk::Walk;

/// How long the record of rows is kept, unless the configuration says otherwise.
const RECORD_KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How much disk the record of rows takes, unless the configuration says otherwise.
const RECORD_SIZE: ByteSize = ByteSize(1 << 30);

/// How long a stop waits for messages that are being handled, unless the configuration says otherwise.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Reads a configuration: a file, or all `*.yaml` and `*.yml` of a folder, with the variables of the process.
///
/// # Errors
/// All faults that were found, each with its place.
pub fn load(path: &Path) -> Result<Project, Box<Faults>> {
    load_with(path, &Environment::of_process())
}

/// Reads a configuration with variables of one's own.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: &Environment) -> Result<Project, Box<Faults>> {
    let schema = schema();
    let mut files = Files::default();
    let mut faults = Vec::new();
    let Some(mut tree) = gather(path, &mut files, &mut faults) else {
        return Err(Box::new(Faults::new(faults, files, Vec::new())));
    };
    let written = Arc::new(Written {
        schema,
        tree: tree.clone(),
        files: files.clone(),
        environment: environment.clone(),
    });
    fill(&mut tree, &files, environment, &mut faults);
    let root = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let filled = hidden::gather(&tree);
    let checked = check(schema, &mut tree, &files);
    hidden::hide(&filled, &tree, &checked.public, schema);
    faults.extend(checked.faults);
    let mut reading = Reading {
        tree: &tree,
        root,
        bad: checked.bad,
        files,
        places: Places::default(),
        faults,
        sources: BTreeMap::new(),
        brokers: BTreeMap::new(),
        models: BTreeMap::new(),
        syncs: BTreeMap::new(),
        pipelines: BTreeMap::new(),
        triggers: BTreeMap::new(),
    };
    reading.places.note("", Span { end: tree.span.start, ..tree.span }, &tree);
    let state = reading.all();
    let hub = reading.hub();
    let Listener { listen, tls: listen_tls, trusted_proxies } = reading.listen(hub.as_ref());
    let Reading { files, places, faults, sources, brokers, models, syncs, pipelines, triggers, .. } = reading;
    let (errors, warnings): (Vec<Fault>, Vec<Fault>) =
        faults.into_iter().partition(|fault| fault.severity == Severity::Error);
    if !errors.is_empty() {
        let all = errors.into_iter().chain(warnings).collect();
        return Err(Box::new(Faults::new(all, files, checked.secrets)));
    }
    let sources = sources.into_iter().map(|(name, config)| {
        let config = written.renew_source(&name, config);
        (name, config)
    });
    let brokers = brokers.into_iter().map(|(name, config)| {
        let config = written.renew_broker(&name, config);
        (name, config)
    });
    Ok(Project {
        root: root.to_owned(),
        sources: sources.collect(),
        brokers: brokers.collect(),
        models,
        syncs,
        pipelines,
        triggers,
        state,
        hub,
        listen,
        listen_tls,
        trusted_proxies,
        warnings: Faults::new(warnings, files.clone(), checked.secrets.clone()),
        files,
        places,
        secrets: checked.secrets,
    })
}

/// What the walk with the schema found.
struct Checked {
    faults: Vec<Fault>,
    secrets: Vec<Span>,
    public: Public,
    /// The paths of keys in which something is wrong; they are not read further.
    bad: BTreeSet<String>,
}

fn check(schema: &Value, tree: &mut Node, files: &Files) -> Checked {
    let mut walk = Walk::new(schema, files);
    let start = tree.span.at_start();
    walk.check(schema, tree, "", start);
    Checked { faults: walk.faults, secrets: walk.secrets, public: walk.public, bad: walk.bad }
}

/// The stage from tree to plan, section by section.
struct Reading<'t> {
    tree: &'t Node,
    root: &'t Path,
    bad: BTreeSet<String>,
    files: Files,
    places: Places,
    faults: Vec<Fault>,
    sources: BTreeMap<String, SourceConfig>,
    brokers: BTreeMap<String, BrokerConfig>,
    models: BTreeMap<String, ProjectModel>,
    syncs: BTreeMap<String, ProjectSync>,
    pipelines: BTreeMap<String, Arc<PipelinePlan>>,
    triggers: BTreeMap<String, ProjectTrigger>,
}

/// What `http` says.
struct Listener {
    listen: SocketAddr,
    tls: Option<RawServerTls>,
    trusted_proxies: Allowed,
}

impl Listener {
    fn at(listen: SocketAddr) -> Listener {
        Listener { listen, tls: None, trusted_proxies: Allowed::default() }
    }
}

/// One entry of a named section.
struct Item<'t> {
    name: &'t str,
    path: String,
    key: Span,
    node: &'t Node,
    /// Whether the walk found nothing wrong in it.
    sound: bool,
}

impl<'t> Reading<'t> {
    fn all(&mut self) -> StateSettings {
        self.sources();
        self.brokers();
        self.models();
        let partials = Partials::read(self.tree, self.root, &mut self.files, &mut self.faults);
        self.places.note_partials(partials.files.clone());
        self.pipelines(&partials);
        self.triggers(&partials);
        self.syncs(partials);
        self.state()
    }

    fn sources(&mut self) {
        for item in self.items("sources") {
            let before = self.faults.len();
            let node = self.sound_part(&item);
            let kind = node.get("type").and_then(Node::text).unwrap_or("");
            // An unknown kind is known to be one since the walk.
            let Some(read) = SourceConfig::read(kind, At(&node)) else { continue };
            match read {
                Ok(config) => {
                    self.misfits(&item, config.faults());
                    if item.sound {
                        self.sources.insert(item.name.to_owned(), config);
                    }
                }
                Err(error) => self.faults.push(de::fault_of(error, &node, &item.path)),
            }
            self.forget_missing(&item, before);
        }
    }

    fn brokers(&mut self) {
        for item in self.items("brokers") {
            let before = self.faults.len();
            let node = self.sound_part(&item);
            let kind = node.get("type").and_then(Node::text).unwrap_or("");
            let Some(read) = BrokerConfig::read(kind, At(&node)) else { continue };
            match read {
                Ok(config) => {
                    self.misfits(&item, config.faults());
                    if item.sound {
                        self.brokers.insert(item.name.to_owned(), config);
                    }
                }
                Err(error) => self.faults.push(de::fault_of(error, &node, &item.path)),
            }
            self.forget_missing(&item, before);
        }
    }

    /// Settings of a source or broker that cannot be used, each at its key.
    fn misfits(&mut self, item: &Item<'_>, misfits: Vec<Misfit>) {
        for Misfit { key, failure } in misfits {
            let path = if key.is_empty() { item.path.clone() } else { format!("{}.{key}", item.path) };
            let mut span = item.key;
            let mut node = item.node;
            for part in key.split('.') {
                let Some(entry) = node.entry(part) else { break };
                node = &entry.value;
                let is_text = node.text().is_some_and(|text| !text.is_empty() && !text.contains('\n'));
                span = if is_text { node.span } else { entry.span };
            }
            let why = failure.detail.as_deref().unwrap_or(&failure.what);
            let place = failure.place.as_deref().map(|place| format!(" ({place})")).unwrap_or_default();
            let fault = Fault::new(failure.code, span, format!("`{path}` cannot be used: {why}{place}"));
            self.faults.push(Fault { remedy: failure.remedy, ..fault });
        }
    }

    fn models(&mut self) {
        let names = self.names("sources");
        for item in self.items("models") {
            let before = self.faults.len();
            let node = self.sound_part(&item);
            let mut reader = ModelReader {
                files: &mut self.files,
                faults: &mut self.faults,
                places: &mut self.places,
                source_names: &names,
                sources: &self.sources,
            };
            let model = reader.model(item.name, &item.path, item.key, &node);
            match model.filter(|_| item.sound) {
                Some(model) => drop(self.models.insert(item.name.to_owned(), model)),
                None => self.forget_missing(&item, before),
            }
        }
    }

    fn pipelines(&mut self, partials: &Partials) {
        let (brokers, sources) = (self.names("brokers"), self.names("sources"));
        // What is no list was told by the walk.
        for item in self.items("pipelines").filter(|item| matches!(item.node.kind, NodeKind::List(_))) {
            let mut reader = PipelineReader {
                files: &mut self.files,
                places: &mut self.places,
                faults: &mut self.faults,
                partials,
                brokers: &brokers,
                sources: &sources,
                bad: &self.bad,
            };
            if let Some(pipeline) = reader.pipeline(item.node, &item.path) {
                self.pipelines.insert(item.name.to_owned(), pipeline);
            }
        }
    }

    fn triggers(&mut self, partials: &Partials) {
        let (brokers, sources) = (self.names("brokers"), self.names("sources"));
        let pipelines = self.names("pipelines");
        let bodies = self
            .tree
            .get("state")
            .and_then(|state| state.get("record"))
            .and_then(|record| record.get("bodies"))
            .and_then(Node::text)
            != Some("false");
        for item in self.items("triggers").filter(|item| item.sound) {
            let mut reader = ConsumeReader {
                pipelines: &self.pipelines,
                pipeline_names: &pipelines,
                broker_configs: &self.brokers,
                steps: PipelineReader {
                    files: &mut self.files,
                    places: &mut self.places,
                    faults: &mut self.faults,
                    partials,
                    brokers: &brokers,
                    sources: &sources,
                    bad: &self.bad,
                },
                record_bodies: bodies,
            };
            if let Some(trigger) = reader.trigger(item.name, &item.path, item.key, item.node) {
                self.triggers.insert(item.name.to_owned(), trigger);
            }
        }
    }

    fn syncs(&mut self, partials: Partials) {
        let kinds = self.items("brokers").filter_map(|item| {
            Some((item.name.to_owned(), item.node.get("type").and_then(Node::text)?.to_owned()))
        });
        let known =
            Known { models: self.names("models"), brokers: self.names("brokers"), kinds: kinds.collect() };
        let partials = Rc::new(partials);
        for item in self.items("syncs") {
            let before = self.faults.len();
            let node = self.sound_part(&item);
            let mut compiler =
                Compiler::new(&mut self.files, &mut self.places, &mut self.faults, partials.clone());
            let sync = compiler.sync(item.name, &item.path, item.key, &node, &known, &self.models);
            match sync.filter(|_| item.sound) {
                Some(sync) => drop(self.syncs.insert(item.name.to_owned(), sync)),
                None => self.forget_missing(&item, before),
            }
        }
    }

    /// An entry without the keys in which something is wrong, so that the faults of the others are told too.
    fn sound_part<'n>(&self, item: &Item<'n>) -> Cow<'n, Node> {
        if item.sound {
            Cow::Borrowed(item.node)
        } else {
            Cow::Owned(pruned(item.node, &item.path, &self.bad))
        }
    }

    /// Of an entry that was read in part, what is missing may be what was left out.
    fn forget_missing(&mut self, item: &Item<'_>, before: usize) {
        if !item.sound {
            let found = self.faults.split_off(before);
            self.faults.extend(found.into_iter().filter(|fault| fault.code != codes::MISSING_KEY));
        }
    }

    fn hub(&mut self) -> Option<ProjectHub> {
        let entry = self.tree.entry("hub").filter(|_| !self.bad.contains("hub"))?;
        self.places.note("hub", entry.span, &entry.value);
        let names = self.names("brokers");
        let mut reader = HubReader {
            faults: &mut self.faults,
            broker_names: &names,
            brokers: &self.brokers,
            node: &entry.value,
            key: entry.span,
        };
        reader.hub()
    }

    fn listen(&mut self, hub: Option<&ProjectHub>) -> Listener {
        let of_hub = hub.and_then(|hub| hub.listen);
        let otherwise = of_hub.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 15670)));
        let Some(node) = self.tree.get("http").filter(|_| !self.bad.contains("http")) else {
            return Listener::at(otherwise);
        };
        let raw: RawListener = match de::read(node, "http") {
            Ok(raw) => raw,
            Err(fault) => {
                self.faults.push(fault);
                return Listener::at(otherwise);
            }
        };
        if let Some(tls) = &raw.tls
            && let Err(failure) = warren_connectors::kit::tls::server_config(&tls.cert, &tls.key)
        {
            let span = node.get("tls").map_or(node.span, |node| node.span);
            let remedy = failure.remedy.clone().unwrap_or_default();
            self.faults.push(Fault::new(failure.code, span, failure.to_string()).remedy(remedy));
        }
        for entry in &raw.trusted_proxies {
            if !Allowed::is_network(entry) {
                let span = node.get("trusted_proxies").map_or(node.span, |node| node.span);
                let message = format!("`{entry}` under `http.trusted_proxies` is not an address or network");
                let fault = Fault::new(codes::INVALID_VALUE, span, message);
                self.faults.push(fault.remedy("write an address, or a network such as 10.0.0.0/8"));
            }
        }
        let (tls, trusted_proxies) = (raw.tls, Allowed::new(&raw.trusted_proxies));
        let Some(text) = raw.listen else { return Listener { listen: otherwise, tls, trusted_proxies } };
        let parsed = text.parse();
        if of_hub.is_some_and(|other| parsed.as_ref().is_ok_and(|listen| *listen != other)) {
            let span = node.get("listen").map_or(node.span, |node| node.span);
            self.faults.push(
                Fault::new(
                    codes::CONFLICTING_KEYS,
                    span,
                    "`http.listen` and `hub.listener` say different addresses",
                )
                .remedy("keep `http.listen`"),
            );
        }
        let listen = parsed.unwrap_or_else(|_| {
            let span = node.get("listen").map_or(node.span, |node| node.span);
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, span, "`http.listen` takes an address with a port")
                    .remedy("write it as 127.0.0.1:15670 or [::1]:15670"),
            );
            otherwise
        });
        Listener { listen, tls, trusted_proxies }
    }

    fn state(&mut self) -> StateSettings {
        let node = self.tree.get("state").filter(|_| !self.bad.contains("state"));
        let raw = match node {
            None => RawState::default(),
            // A path alone is the folder.
            Some(node) if node.scalar().is_some() => {
                RawState { folder: node.text().map(str::to_owned), ..RawState::default() }
            }
            Some(node) => de::read(node, "state").unwrap_or_else(|fault| {
                self.faults.push(fault);
                RawState::default()
            }),
        };
        StateSettings {
            folder: raw.folder.map_or_else(|| self.root.join(".warren"), PathBuf::from),
            record_keep: raw.record.keep.map_or(RECORD_KEEP, |keep| keep.0),
            record_size: raw.record.size.map_or(RECORD_SIZE, |size| size.0),
            shutdown_grace: raw.shutdown_grace.map_or(SHUTDOWN_GRACE, |grace| grace.0),
            record_bodies: raw.record.bodies.unwrap_or(true),
        }
    }

    fn items(&self, section: &'t str) -> impl Iterator<Item = Item<'t>> + use<'t> {
        let entries = match self.tree.get(section).map(|node| &node.kind) {
            Some(NodeKind::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let bad: BTreeSet<String> =
            self.bad.iter().filter(|path| path.starts_with(section)).cloned().collect();
        entries.iter().map(move |entry| {
            let path = format!("{section}.{}", entry.key);
            let sound = !bad.contains(&path);
            Item { name: &entry.key, path, key: entry.span, node: &entry.value, sound }
        })
    }

    /// All names of a section, also of what is broken: that it is broken is told once.
    fn names(&self, section: &'t str) -> Vec<String> {
        self.items(section).map(|item| item.name.to_owned()).collect()
    }
}

/// A map without the entries in which something is wrong; of an entry that is wrong in a part only, the rest stays.
fn pruned(node: &Node, path: &str, bad: &BTreeSet<String>) -> Node {
    let NodeKind::Map(entries) = &node.kind else { return node.clone() };
    let mut kept = Vec::new();
    for entry in entries {
        let path = format!("{path}.{}", entry.key);
        if !bad.contains(&path) {
            kept.push(entry.clone());
            continue;
        }
        let inside = format!("{path}.");
        let in_part = bad.range(inside.clone()..).next().is_some_and(|next| next.starts_with(&inside));
        if in_part {
            kept.push(Entry { value: pruned(&entry.value, &path, bad), ..entry.clone() });
        }
    }
    Node { span: node.span, kind: NodeKind::Map(kept) }
}
