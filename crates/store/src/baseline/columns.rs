//! The columns that make prints, now and when the baseline was made.
//!
//! A template that begins to use another column changes which columns count. That alone must not send every row
//! again, so the two sets are reconciled:
//! 1. no column is new, and the rows are kept: entries are printed anew from the kept rows;
//! 2. the query still yields the old columns: prints of both sets are taken, a row that is the same under the old set
//!    is the same, and its entry gets the new print at the end of the run;
//! 3. it does not, and the rows are kept with all the new columns: as 1;
//! 4. otherwise nobody can tell what changed, and the summary says so.
//!
//! Baselines of formats 1 and 2 have prints of decimals as they were written. While there may be such entries, prints of both
//! kinds are taken in the same way.

use warren_engine::failure::Failure;
use warren_engine::fingerprint::Picker;
use warren_engine::model::{Column, ColumnType, Schema};
use warren_engine::ports::{Compare, DiffSpec};

use super::manifest::Manifest;

/// How prints are taken in one run.
#[derive(Debug)]
pub(crate) struct Columns {
    /// The key's columns, in their order.
    pub(crate) key: Vec<Column>,
    /// The columns that count, sorted by name.
    pub(crate) compare: Vec<Column>,
    pub(crate) key_picker: Picker,
    /// How keys would be printed by value, where they are printed as they are written.
    pub(crate) key_by_value: Option<Picker>,
    /// The set in use, and then those the baseline may have prints of.
    pub(crate) pickers: Vec<Picker>,
    /// Whether the entries are to be printed anew from the kept rows, if these have the columns.
    pub(crate) reprint: bool,
    /// Whether nothing else will do.
    lost: bool,
    /// Columns of old sets that the query does not yield any more.
    gone: Vec<String>,
    /// What else cannot be reconciled, in sentences' parts.
    faults: Vec<String>,
}

impl Columns {
    /// Resolves what a diff asks against the query's columns and what the baseline was made with.
    pub(crate) fn resolve(schema: &Schema, spec: &DiffSpec, manifest: &Manifest) -> Result<Columns, Failure> {
        let unknown = |name: String| {
            Failure::internal(format!("compare by column `{name}`, which the query does not yield"))
        };
        let column = |name: &str| schema.index_of(name).map(|at| schema.columns()[at].clone());
        let mut key = Vec::new();
        for name in &spec.key {
            key.push(column(name).ok_or_else(|| unknown(name.clone()))?);
        }
        let counts = |name: &str| match &spec.compare {
            Compare::AllBut(ignored) => !ignored.contains(name),
            Compare::These(used) => used.contains(name),
        };
        let mut compare: Vec<Column> =
            schema.columns().iter().filter(|column| counts(&column.name)).cloned().collect();
        compare.sort_unstable_by(|one, other| one.name.cmp(&other.name));

        let key_picker = Picker::in_order(schema, spec.key.iter().map(String::as_str)).map_err(unknown)?;
        let written_keys = manifest.written_keys.then(|| key_picker.as_written()).flatten();
        let mut columns = Columns {
            pickers: vec![Picker::by_name(schema, names(&compare)).map_err(unknown)?],
            key,
            compare,
            key_by_value: written_keys.is_some().then(|| key_picker.clone()),
            key_picker: written_keys.unwrap_or(key_picker),
            reprint: false,
            lost: false,
            gone: Vec::new(),
            faults: Vec::new(),
        };
        columns.compare_keys(&manifest.key);
        for old in &manifest.compare {
            columns.add_old(schema, old);
        }
        if manifest.written_rows {
            let written: Vec<Picker> = columns.pickers.iter().filter_map(Picker::as_written).collect();
            columns.pickers.extend(written);
        }
        Ok(columns)
    }

    /// Adds a set of columns that the baseline has prints of.
    fn add_old(&mut self, schema: &Schema, old: &[Column]) {
        for column in old {
            let now = self.compare.iter().find(|now| now.name == column.name);
            if let Some(now) = now.filter(|now| differ(now.kind, column.kind)) {
                self.fault(format!("`{}` was {} and is {}", column.name, column.kind, now.kind));
            }
        }
        if names(old).eq(names(&self.compare)) {
            return;
        }
        self.reprint |= names(&self.compare).all(|name| names(old).any(|old| old == name));
        if let Ok(picker) = Picker::by_name(schema, names(old)) {
            self.pickers.push(picker);
            return;
        }
        (self.reprint, self.lost) = (true, true);
        for name in names(old).filter(|name| schema.index_of(name).is_none()) {
            let gone = format!("`{name}`");
            if !self.gone.contains(&gone) {
                self.gone.push(gone);
            }
        }
    }

    fn compare_keys(&mut self, old: &[Column]) {
        if old.is_empty() {
            return;
        }
        if !names(old).eq(names(&self.key)) {
            let list = |columns: &[Column]| names(columns).collect::<Vec<_>>().join(", ");
            let fault = format!("the key was `{}` and is `{}`", list(old), list(&self.key));
            return self.fault(fault);
        }
        let changed: Vec<String> = old
            .iter()
            .zip(&self.key)
            .filter(|(old, now)| differ(old.kind, now.kind))
            .map(|(old, now)| format!("the key's column `{}` was {} and is {}", old.name, old.kind, now.kind))
            .collect();
        for fault in changed {
            self.fault(fault);
        }
    }

    /// Whether a kept row of these columns can be printed over the set in use; notes a type that changed.
    pub(crate) fn can_reprint(&mut self, stored: &Schema) -> bool {
        for column in self.compare.clone() {
            let Some(at) = stored.index_of(&column.name) else { return false };
            let kind = stored.columns()[at].kind;
            if differ(kind, column.kind) {
                self.fault(format!("`{}` was {kind} and is {}", column.name, column.kind));
            }
        }
        true
    }

    /// The entries were printed anew: nothing of old sets is left.
    pub(crate) fn reprinted(&mut self) {
        self.pickers.truncate(1);
        (self.reprint, self.lost) = (false, false);
        self.gone.clear();
    }

    /// What could not be reconciled, as one sentence.
    pub(crate) fn sentence(&self) -> Option<String> {
        let mut parts = self.faults.clone();
        if self.lost {
            let verb = if self.gone.len() == 1 { "is" } else { "are" };
            parts.push(format!("{} {verb} gone from the query", self.gone.join(", ")));
        }
        (!parts.is_empty())
            .then(|| format!("columns that count changed since the last run: {}", parts.join("; ")))
    }

    /// What may be the reason where no key of the baseline is left: keys are printed as they are written, and decimals of another
    /// scale are other keys. `None`: it cannot be.
    pub(crate) fn other_scale(&self) -> Option<String> {
        self.key_by_value.as_ref()?;
        let list = names(&self.key).collect::<Vec<_>>().join(", ");
        Some(format!(
            "no key of the last run is left: the key `{list}` has decimals, whose number of decimal places may have changed"
        ))
    }

    fn fault(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

/// The names of columns, in order.
pub(crate) fn names(columns: &[Column]) -> impl Iterator<Item = &str> {
    columns.iter().map(|column| column.name.as_str())
}

/// Whether values of the two types cannot be the same bytes. Under [`ColumnType::Any`] they may be.
fn differ(one: ColumnType, other: ColumnType) -> bool {
    one != other && one != ColumnType::Any && other != ColumnType::Any
}
