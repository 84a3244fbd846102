//! Liquid templates that know they are writing JSON.
//!
//! A [`Template`] is parsed once and rendered for each row, from borrowed [`Val`]ues into a buffer
//! that is reused. The language is the reference Liquid's; unknown tags, filters and names are errors
//! unless [`Options::lax`] is set.
//!
//! In [`Format::Json`] every output is written the way its place asks for: inside a string it is
//! escaped, elsewhere it is one JSON value. The places are worked out when the template is parsed, by
//! following JSON's grammar through the text and the branches. What cannot be shown to be JSON
//! whatever the row is checked after each rendering.
//!
//! Nothing here reads a file, a clock or the environment, and nothing panics on any template or row:
//! [`Limits`] bound the steps, the bytes and the nesting.
//!
//! ```
//! use warren_liquid::{Options, Template, Val};
//!
//! let template = Template::parse(r#"{"name": "{{ row.name }}", "age": {{ row.age }}}"#, &Options::default())?;
//! let row = vec![("name", Val::Str("Ann \"A\"")), ("age", Val::Int(30))];
//! let mut out = Vec::new();
//! template.render(&vec![("row", Val::Object(&row))], &mut out)?;
//! assert_eq!(out, br#"{"name": "Ann \"A\"", "age": 30}"#);
//! # Ok::<(), warren_liquid::Error>(())
//! ```

mod analysis;
mod calendar;
mod compare;
mod compile;
mod error;
mod expression;
mod filters;
mod grammar;
mod held;
mod instant;
pub mod json;
mod lexer;
mod list;
mod machine;
mod number;
mod options;
mod parse;
mod program;
mod reads;
mod scan;
mod source;
mod syntax;
mod tags;
mod template;
mod value;

pub use error::{Error, ErrorKind, nearest};
pub use options::{Format, Limits, Options, Partials};
pub use reads::{Columns, Names, Reads};
pub use template::{Condition, Template, vocabulary};
pub use value::{Array, Globals, Object, Val};
