//! Fingerprints: what a key and a row are known by once they are gone.
//!
//! xxh3-128 over packed cells (see [`crate::row`]), so type tags and lengths are part of what is hashed. A
//! key's print keeps all 128 bits: at 10⁹ keys two of them collide with a probability of 1.5·10⁻²¹. A row's print
//! is only ever compared with the print of the same key, and keeps 112 bits; the other 16 of an entry count
//! the key's accepted changes (see [`crate::change::ChangeId`]).
//!
//! Decimals are printed by value ([`canonical`]): `1.0` and `1.00` have one print. Prints of older baselines are of decimals
//! as they were written, which [`Picker::as_written`] still makes.

use xxhash_rust::xxh3::xxh3_128;

use crate::canonical;
use crate::model::{ColumnType, Schema};
use crate::row::RowRef;

/// The 128-bit hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrint(pub u128);

/// The 112-bit hash of the columns of a row that count; the upper 16 bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPrint(u128);

impl RowPrint {
    /// How many bits count.
    pub const BITS: u32 = 112;

    /// These bits.
    pub const MASK: u128 = u128::MAX >> (u128::BITS - Self::BITS);

    /// Keeps the lower 112 bits.
    pub fn new(bits: u128) -> RowPrint {
        RowPrint(bits & Self::MASK)
    }

    /// The bits; the upper 16 are zero.
    pub fn bits(self) -> u128 {
        self.0
    }
}

/// Which columns of a schema make a print, in which order.
///
/// The order is that of the names, not of the query, so `SELECT a, b` and `SELECT b, a` are one.
#[derive(Debug, Clone)]
pub struct Picker {
    indexes: Vec<usize>,
    /// The same, where each run of neighbours is one: the first and behind the last.
    runs: Vec<(usize, usize)>,
    whole: bool,
    /// Those that may hold decimals, which are printed by value.
    decimals: Vec<usize>,
}

impl Picker {
    /// Picks columns by name.
    ///
    /// # Errors
    /// The first name that the schema does not have.
    pub fn by_name<'n>(schema: &Schema, names: impl IntoIterator<Item = &'n str>) -> Result<Picker, String> {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let mut indexes = Vec::with_capacity(names.len());
        for name in names {
            indexes.push(schema.index_of(name).ok_or_else(|| name.to_owned())?);
        }
        let runs = runs(&indexes);
        let whole = runs == [(0, schema.len())];
        Ok(Picker { decimals: decimals(schema, &indexes), indexes, runs, whole })
    }

    /// Picks columns in the order given, as a key does.
    ///
    /// # Errors
    /// The first name that the schema does not have.
    pub fn in_order<'n>(schema: &Schema, names: impl IntoIterator<Item = &'n str>) -> Result<Picker, String> {
        let mut indexes = Vec::new();
        for name in names {
            indexes.push(schema.index_of(name).ok_or_else(|| name.to_owned())?);
        }
        Ok(Picker { decimals: decimals(schema, &indexes), runs: runs(&indexes), indexes, whole: false })
    }

    /// The same columns, with decimals as they are written. `None`: none of them can hold a decimal.
    #[must_use]
    pub fn as_written(&self) -> Option<Picker> {
        (!self.decimals.is_empty()).then(|| Picker { decimals: Vec::new(), ..self.clone() })
    }

    /// The places of the columns picked, in the order of the print.
    pub fn indexes(&self) -> &[usize] {
        &self.indexes
    }
}

fn decimals(schema: &Schema, indexes: &[usize]) -> Vec<usize> {
    let may_hold =
        |index: &usize| matches!(schema.columns()[*index].kind, ColumnType::Decimal | ColumnType::Array);
    indexes.iter().copied().filter(may_hold).collect()
}

fn runs(indexes: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &index in indexes {
        match runs.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => runs.push((index, index + 1)),
        }
    }
    runs
}

/// Takes prints; holds scratch space, so that a print costs no allocation.
#[derive(Debug, Default)]
pub struct Printer {
    offsets: Vec<u32>,
    picked: Vec<u8>,
}

impl Printer {
    /// The key's print, or `None` where a key column is NULL.
    pub fn key(&mut self, row: RowRef<'_>, key: &Picker) -> Option<KeyPrint> {
        if let [index] = key.indexes[..] {
            let cell = row.cell(index);
            if !key.decimals.is_empty() && !canonical::is_canonical(cell) {
                self.picked.clear();
                canonical::append(cell, &mut self.picked);
                return Some(KeyPrint(xxh3_128(&self.picked)));
            }
            return (cell.first() != Some(&0)).then(|| KeyPrint(xxh3_128(cell)));
        }
        row.offsets(&mut self.offsets);
        self.picked.clear();
        for &index in &key.indexes {
            let cell = &row.as_bytes()[self.offsets[index] as usize..self.offsets[index + 1] as usize];
            if cell.first() == Some(&0) {
                return None;
            }
            if key.decimals.is_empty() {
                self.picked.extend_from_slice(cell);
            } else {
                canonical::append(cell, &mut self.picked);
            }
        }
        Some(KeyPrint(xxh3_128(&self.picked)))
    }

    /// The row's print over the columns picked.
    pub fn row(&mut self, row: RowRef<'_>, compare: &Picker) -> RowPrint {
        if compare.whole && compare.decimals.is_empty() {
            return RowPrint::new(xxh3_128(row.as_bytes()));
        }
        row.offsets(&mut self.offsets);
        if !compare.decimals.is_empty() {
            let cell = |at: usize| &row.as_bytes()[self.offsets[at] as usize..self.offsets[at + 1] as usize];
            if !compare.decimals.iter().all(|&index| canonical::is_canonical(cell(index))) {
                self.picked.clear();
                compare.indexes.iter().for_each(|&index| canonical::append(cell(index), &mut self.picked));
                return RowPrint::new(xxh3_128(&self.picked));
            }
            if compare.whole {
                return RowPrint::new(xxh3_128(row.as_bytes()));
            }
        }
        let cells = |&(first, end): &(usize, usize)| {
            &row.as_bytes()[self.offsets[first] as usize..self.offsets[end] as usize]
        };
        if let [run] = &compare.runs[..] {
            return RowPrint::new(xxh3_128(cells(run)));
        }
        self.picked.clear();
        for run in &compare.runs {
            self.picked.extend_from_slice(cells(run));
        }
        RowPrint::new(xxh3_128(&self.picked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Column, ColumnType};
    use crate::row::Batch;
    use std::sync::Arc;

    fn schema(names: &[&str]) -> Arc<Schema> {
        let columns = names.iter().map(|name| Column { name: (*name).into(), kind: ColumnType::Any });
        Schema::new(columns.collect()).unwrap()
    }

    fn row(fill: impl FnOnce(&mut crate::row::Cells<'_>)) -> Batch {
        let mut batch = Batch::default();
        fill(&mut batch.cells());
        batch.end_row();
        batch
    }

    #[test]
    fn type_and_length_count() {
        let schema = schema(&["a", "b"]);
        let key = Picker::in_order(&schema, ["a", "b"]).unwrap();
        let rows = [
            row(|cells| {
                cells.text("1");
                cells.int(1)
            }),
            row(|cells| {
                cells.int(1);
                cells.int(1)
            }),
            row(|cells| {
                cells.text("ab");
                cells.text("c")
            }),
            row(|cells| {
                cells.text("a");
                cells.text("bc")
            }),
            row(|cells| {
                cells.text("");
                cells.text("")
            }),
        ];
        let mut printer = Printer::default();
        let prints: Vec<_> = rows.iter().map(|batch| printer.key(batch.row(0), &key)).collect();
        for (at, one) in prints.iter().enumerate() {
            assert!(one.is_some());
            for other in &prints[at + 1..] {
                assert_ne!(one, other);
            }
        }
        let null = row(|cells| {
            cells.int(1);
            cells.null()
        });
        assert_eq!(printer.key(null.row(0), &key), None);
    }

    #[test]
    fn the_order_of_the_query_does_not_count() {
        let (one, other) = (schema(&["a", "b"]), schema(&["b", "a"]));
        let mut printer = Printer::default();
        let ab = row(|cells| {
            cells.int(1);
            cells.int(2)
        });
        let ba = row(|cells| {
            cells.int(2);
            cells.int(1)
        });
        let by_name = |schema: &Schema| Picker::by_name(schema, ["b", "a"]).unwrap();
        assert_eq!(printer.row(ab.row(0), &by_name(&one)), printer.row(ba.row(0), &by_name(&other)));
        assert_eq!(Picker::by_name(&one, ["c"]).unwrap_err(), "c");
    }

    #[test]
    fn equal_decimals_have_equal_prints_in_keys_and_rows() {
        let columns = [("a", ColumnType::Decimal), ("b", ColumnType::Text), ("c", ColumnType::Array)];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), kind });
        let schema = Schema::new(columns.into()).unwrap();
        let make = |digits: &'static str, elements: &'static str| {
            row(|cells| {
                cells.decimal(digits);
                cells.text("1.0");
                cells.array(1, |cells| cells.decimal(elements));
            })
        };
        let mut printer = Printer::default();
        let pickers =
            [vec!["a", "b", "c"], vec!["a"], vec!["a", "c"], vec!["c"]].map(|names| (names.clone(), names));
        for (names, ordered) in pickers {
            let picker = Picker::by_name(&schema, names).unwrap();
            let key = Picker::in_order(&schema, ordered).unwrap();
            let mut prints =
                |batch: &Batch| (printer.key(batch.row(0), &key), printer.row(batch.row(0), &picker));
            let plain = prints(&make("1", "2"));
            for same in [make("1.0", "2.00"), make("1.000", "2"), make("1", "2.0")] {
                assert_eq!(prints(&same), plain);
            }
            assert_ne!(prints(&make("1.01", "2.01")), plain);
        }
        // What is written without such zeros has the print it always had.
        let (whole, plain) = (Picker::by_name(&schema, ["a", "b", "c"]).unwrap(), make("1.5", "2"));
        let written = whole.as_written().unwrap();
        assert_eq!(printer.row(plain.row(0), &whole), printer.row(plain.row(0), &written));
        let zeros = make("1.50", "2");
        assert_ne!(printer.row(zeros.row(0), &whole), printer.row(zeros.row(0), &written));
        assert_eq!(printer.row(zeros.row(0), &whole), printer.row(plain.row(0), &whole));
        assert!(Picker::by_name(&schema, ["b"]).unwrap().as_written().is_none());
    }

    #[test]
    fn a_print_is_that_of_its_cells_in_order_of_names() {
        let schema = schema(&["d", "a", "b", "e", "c"]);
        let batch = row(|cells| {
            cells.text("dd");
            cells.int(1);
            cells.null();
            cells.bool(true);
            cells.uuid([7; 16])
        });
        let row = batch.row(0);
        let places = [("a", 1), ("b", 2), ("c", 4), ("d", 0), ("e", 3)];
        for chosen in 0..32u32 {
            let picked = || places.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            let picker = Picker::by_name(&schema, picked().map(|(_, (name, _))| *name)).unwrap();
            let bytes: Vec<u8> = picked().flat_map(|(_, &(_, at))| row.cell(at).to_vec()).collect();
            let print = Printer::default().row(row, &picker);
            assert_eq!(print, RowPrint::new(xxh3_128(&bytes)), "columns {chosen:05b}");
        }
    }
}
