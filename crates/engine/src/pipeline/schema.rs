//! JSON Schema: compiled once, with nothing fetched from anywhere.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use boon::{CompileError, Compiler, SchemaIndex, Schemas, UrlLoader, ValidationError};
use serde_json::Value;

/// Where the schema is said to be; relative references in it are to itself.
const LOCATION: &str = "warren://schema";
/// The longest reason that is told.
const REASON_CHARS_MAX: usize = 300;

/// A compiled schema. Clones share it.
#[derive(Clone)]
pub struct Schema(Arc<(Schemas, SchemaIndex)>);

/// Where a value is not what the schema wants, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The place in the value as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles a schema of draft 4, 6, 7, 2019-09 or 2020-12 (the default).
    ///
    /// # Errors
    /// It is no schema, or refers to what is not in it.
    pub fn compile(schema: Value) -> Result<Schema, String> {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler.use_loader(Box::new(Nowhere));
        compiler.enable_format_assertions();
        compiler.add_resource(LOCATION, schema).map_err(|error| told(&error))?;
        let index = compiler.compile(LOCATION, &mut schemas).map_err(|error| told(&error))?;
        Ok(Schema(Arc::new((schemas, index))))
    }

    /// Checks a value.
    ///
    /// # Errors
    /// It is not what the schema wants; the first place where.
    pub fn check(&self, value: &Value) -> Result<(), Mismatch> {
        let (schemas, index) = self.0.as_ref();
        schemas.validate(value, *index).map_err(|error| {
            let innermost = innermost(&error);
            Mismatch {
                pointer: innermost.instance_location.to_string(),
                reason: cut(&innermost.kind.to_string()),
            }
        })
    }
}

/// The first place where a value is not what it should be.
fn innermost<'e>(error: &'e ValidationError<'_, '_>) -> &'e ValidationError<'e, 'e> {
    let mut innermost = error;
    while let Some(cause) = innermost.causes.first() {
        innermost = cause;
    }
    innermost
}

/// Why a schema cannot be compiled, without the name we gave it.
fn told(error: &CompileError) -> String {
    let told = match error {
        CompileError::LoadUrlError { src, .. } => src.to_string(),
        CompileError::ValidationError { src, .. } => {
            let innermost = innermost(src);
            format!("`{}`: {}", innermost.instance_location, innermost.kind)
        }
        CompileError::InvalidRegex { regex, .. } => format!("`{regex}` is no regular expression"),
        other => format!("{other:#}"),
    };
    cut(told.replace(LOCATION, "").trim())
}

/// Loads nothing: a configuration says itself all that it means.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, url: &str) -> Result<Value, Box<dyn Error>> {
        Err(format!("`{url}` is not part of the schema, and nothing is fetched; put it into `$defs`").into())
    }
}

fn cut(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_failing_path_is_told() {
        let schema = Schema::compile(json!({
            "type": "object",
            "required": ["sku"],
            "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}, "mail": {"format": "email"}},
            "$defs": {"line": {"properties": {"n": {"type": "integer", "minimum": 1}}}},
        }))
        .unwrap();
        assert_eq!(schema.check(&json!({"sku": 1, "lines": [{"n": 1}]})), Ok(()));
        let wrong = schema.check(&json!({"sku": 1, "lines": [{"n": 1}, {"n": 0}]})).unwrap_err();
        assert_eq!(wrong.pointer, "/lines/1/n");
        assert!(wrong.reason.contains('1'), "{}", wrong.reason);
        assert!(schema.check(&json!({})).unwrap_err().reason.contains("sku"));
        assert_eq!(schema.check(&json!({"sku": 1, "mail": "x"})).unwrap_err().pointer, "/mail");
        // Numbers are kept as their digits elsewhere in the program.
        assert!(
            schema.check(&serde_json::from_str(r#"{"sku": 1, "lines": [{"n": 1.5}]}"#).unwrap()).is_err()
        );
        assert_eq!(
            schema.check(&serde_json::from_str(r#"{"sku": 1, "lines": [{"n": 2.0}]}"#).unwrap()),
            Ok(())
        );
    }

    #[test]
    fn nothing_is_fetched() {
        for reference in ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "other.json"] {
            let told = Schema::compile(json!({"$ref": reference})).unwrap_err();
            assert!(told.contains("nothing is fetched"), "{told}");
        }
        assert!(Schema::compile(json!({"type": "strin"})).is_err());
        assert!(Schema::compile(json!({"pattern": "("})).is_err());
    }
}
