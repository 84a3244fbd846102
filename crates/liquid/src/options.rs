//! How a template is read, and what bounds it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a template writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON document; outputs are escaped or serialised by the place they stand at.
    #[default]
    Json,
    /// Any text; outputs are written as the reference Liquid writes them.
    Text,
}

/// How a template is parsed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub format: Format,
    /// The reference's lenient ways: unknown names are nil, unknown filters do nothing, what follows
    /// an expression is ignored, and values that cannot be compared are just not less.
    pub lax: bool,
    pub limits: Limits,
    pub partials: Partials,
    /// The file or the place in the configuration, shown in errors.
    pub name: String,
}

/// Bounds that keep a template from hanging or from filling the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Operations of one rendering; a filter counts for what it goes through.
    pub steps_max: u64,
    /// Bytes of the result, and of any text made on the way.
    pub output_bytes_max: usize,
    /// Bytes of a template with its partials.
    pub source_bytes_max: usize,
    /// Blocks within blocks, and brackets within brackets.
    pub nesting_max: usize,
    /// Partials within partials.
    pub partials_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 1_000_000,
            output_bytes_max: 16 << 20,
            source_bytes_max: 1 << 20,
            nesting_max: 64,
            partials_max: 16,
        }
    }
}

/// The partials a template may `render` or `include`: texts by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Partials(Arc<BTreeMap<String, String>>);

impl Partials {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl From<BTreeMap<String, String>> for Partials {
    fn from(texts: BTreeMap<String, String>) -> Self {
        Self(Arc::new(texts))
    }
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for Partials {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(texts: I) -> Self {
        Self(Arc::new(texts.into_iter().map(|(name, text)| (name.into(), text.into())).collect()))
    }
}
