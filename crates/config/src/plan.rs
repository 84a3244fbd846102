//! From a sync as written to a [`SyncPlan`].

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::json;
use warren_engine::change::Op;
use warren_engine::sync::plan::{
    BATCH_MESSAGES, BATCHES_IN_FLIGHT, CompareChoice, Guard, GuardLimit, Initial, SyncPlan, Trigger,
};

use super::de;
use super::faults::Fault;
use super::model::{Partials, unknown_name};
use super::places::Places;
use super::project::{ProjectModel, ProjectSync};
use super::raw::forms::{Compare, Limit, Nan};
use super::raw::sync::{Initial as RawInitial, RawSync, RawTrigger};
use super::text::{Files, Span};
use super::tree::{Entry, Node};
use super::trigger::{KeptRows, TriggerReader, overlaid};

/// How long a broker is waited for, unless the sync says otherwise: longer than a restart, shorter than nobody noticing.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 60);
/// Names that are written down, also of what is broken.
pub struct Known {
    /// Under `models`.
    pub models: Vec<String>,
    /// Under `brokers`.
    pub brokers: Vec<String>,
    /// The kind of each broker that says its.
    pub kinds: BTreeMap<String, String>,
}

/// Compiles syncs.
pub struct Compiler<'a> {
    files: &'a mut Files,
    places: &'a mut Places,
    faults: &'a mut Vec<Fault>,
    partials: Rc<Partials>,
    /// The keys that a trigger may override.
    options: &'static [String],
}

/// Changes when the same configuration begins to make other messages.
const DIGEST_VERSION: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));

impl<'a> Compiler<'a> {
    /// A compiler of syncs whose templates share partials.
    pub fn new(
        files: &'a mut Files,
        places: &'a mut Places,
        faults: &'a mut Vec<Fault>,
        partials: Rc<Partials>,
    ) -> Compiler<'a> {
        Compiler { files, places, faults, partials, options: options() }
    }

    /// A hash of all that decides what a sync sends: its keys with their variables filled in, its model, the files of its templates
    /// (the texts behind the first `texts`) and all partials. Two syncs of one hash make the same messages.
    fn digest(&self, node: &Node, model: &ProjectModel, texts: usize) -> u128 {
        let partials = self.partials.files.iter().map(|(name, file)| (name, self.files.text(*file)));
        let files: Vec<&str> = self.files.added_since(texts).collect();
        let all = json!([
            DIGEST_VERSION,
            node.to_json(),
            [&model.source, &model.model.name, &model.model.sql],
            model.model.key,
            files,
            partials.collect::<Vec<_>>(),
        ]);
        xxhash_rust::xxh3::xxh3_128(all.to_string().as_bytes())
    }

    /// The sync of an entry. `None`: something is wrong with it, and was told, here or where it points.
    pub fn sync(
        &mut self,
        name: &str,
        path: &str,
        key: Span,
        node: &Node,
        known: &Known,
        models: &BTreeMap<String, ProjectModel>,
    ) -> Option<ProjectSync> {
        let texts = self.files.count();
        let raw: RawSync = match de::read(node, path) {
            Ok(raw) => raw,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        if !known.models.contains(&raw.model) {
            self.faults.push(unknown_name("model", &raw.model, node, "model", &known.models, key));
        }
        if !known.brokers.contains(&raw.to) {
            self.faults.push(unknown_name("broker", &raw.to, node, "to", &known.brokers, key));
        }
        let model = models.get(&raw.model);
        let columns = model.map_or(&[][..], |model| &model.model.key);
        let kind = known.kinds.get(&raw.to).map(String::as_str);
        let triggers = self.triggers(&raw, path, key, node, columns, kind);
        // The rest of the sync was looked at all the same, so that its faults are told with those of the model.
        let (model, [added, changed, removed]) = (model?, triggers?);
        let plan = SyncPlan {
            name: name.to_owned(),
            model: model.model.clone(),
            added,
            changed,
            removed,
            compare: match raw.compare {
                Compare::Used => CompareChoice::Used,
                Compare::All => CompareChoice::All,
                Compare::These(columns) => CompareChoice::These(columns.into_iter().collect()),
            },
            ignore: raw.ignore.into_iter().flat_map(|names| names.0).collect(),
            keep_rows: raw.keep_rows.unwrap_or(true),
            initial: match raw.initial {
                RawInitial::Backfill => Initial::Backfill,
                RawInitial::Skip => Initial::Skip,
            },
            guard: Guard {
                added: raw.guard.added.map(limit),
                changed: raw.guard.changed.map(limit),
                removed: raw.guard.removed.map(limit),
                total: raw.guard.total.map(limit),
            },
            nan_as_null: raw.nan == Nan::Null,
            give_up_after: raw.give_up_after.map_or(GIVE_UP_AFTER, |span| span.0),
            batch_messages: BATCH_MESSAGES,
            batches_in_flight: BATCHES_IN_FLIGHT,
        };
        let digest = self.digest(node, model, texts);
        Some(ProjectSync { source: model.source.clone(), broker: raw.to, plan: Arc::new(plan), digest })
    }

    /// The triggers for added, changed and removed. `None`: one of them has a fault.
    fn triggers(
        &mut self,
        raw: &RawSync,
        path: &str,
        key: Span,
        node: &Node,
        key_columns: &[String],
        kind: Option<&str>,
    ) -> Option<[Option<Arc<Trigger>>; 3]> {
        let on = node.get("on");
        let own = |op: Op| on.and_then(|on| on.entry(&op.to_string()));
        let kept = raw.keep_rows.unwrap_or(true);
        // What has keys of its own is compiled by itself, the others once for all of them.
        let shared: Vec<Op> = raw.on.0.iter().copied().filter(|op| own(*op).is_none_or(is_bare)).collect();
        let mut sound = true;
        let mut compile = |path: &str, key: Span, own: Option<&Node>, ops: &[Op]| {
            let node = overlaid(node, own, self.options);
            for op in ops {
                self.places.note_over(&format!("{path}.on.{op}"), &node);
            }
            let rows = KeptRows { ops, kept, key: key_columns };
            let sync = path;
            let path = match (own, ops) {
                (Some(_), [op]) => format!("{sync}.on.{op}"),
                _ => sync.to_owned(),
            };
            let reader = TriggerReader {
                files: self.files,
                places: self.places,
                faults: self.faults,
                partials: &self.partials,
                sync,
                path: &path,
                key,
                node: &node,
                rows,
                kind,
            };
            let trigger = reader.trigger().map(Arc::new);
            sound &= trigger.is_some();
            trigger
        };
        let common = if shared.is_empty() { None } else { compile(path, key, None, &shared) };
        let triggers = [Op::Added, Op::Changed, Op::Removed].map(|op| {
            if !raw.on.0.contains(&op) {
                return None;
            }
            match own(op).filter(|entry| !is_bare(entry)) {
                Some(entry) => compile(path, entry.span, Some(&entry.value), &[op]),
                None => common.clone(),
            }
        });
        sound.then_some(triggers)
    }
}

/// The keys that a sync and its triggers have in common.
fn options() -> &'static [String] {
    static OPTIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let schema = RawTrigger::json_schema(&mut SchemaGenerator::default());
        let options = schema.get("properties").and_then(|properties| properties.as_object());
        options.map(|options| options.keys().cloned().collect()).unwrap_or_default()
    });
    &OPTIONS
}

/// Whether a trigger has no keys of its own.
fn is_bare(entry: &Entry) -> bool {
    entry.value.entries().is_none_or(<[Entry]>::is_empty)
}

fn limit(limit: Limit) -> GuardLimit {
    match limit {
        Limit::Rows(rows) => GuardLimit::Rows(rows),
        Limit::Share(share) => GuardLimit::Share(share),
    }
}
