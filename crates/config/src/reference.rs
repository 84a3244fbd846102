//! The reference page of the configuration, written from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::wants::{expects, is_value};

/// The text before the keys.
const INTRODUCTION: &str = "\
# Configuration

`warren schema --docs` generates this page from the comments in the source code. Change the comments, not this page.

A configuration is one YAML file (`-c FILE`, default `warren.yaml`), or all `*.yaml` and `*.yml` files of a folder (`-c FOLDER`), whose
sections are merged. A name may be defined only once. Every key that is not on this page is an error.

```yaml
sources:
  shop: {type: postgres, url: \"${SHOP_URL:-postgres://localhost/shop}\"}
models:
  customers:
    source: shop
    primary_key: id
    sql: SELECT id, email, full_name, age, region FROM customers
brokers:
  rabbit: {type: rabbitmq, url: \"${RABBIT_URL:-amqp://localhost}\"}
syncs:
  customers:
    model: customers
    to: rabbit
    on: [added, changed, removed]
    queue: crm.customers
    message:
      template: |
        {\"op\": {{ op }}, \"name\": \"{{ row.full_name }}\", \"age\": {{ row.age }}}
```

## Variables and files

| in a value | becomes |
|---|---|
| `${NAME}` | the value of the environment variable. A variable that is not set is an error |
| `${NAME:-default}` | the same, or the default if the variable is unset or empty |
| `${file:PATH}` | the text of the file, without the line break at its end |
| `$${` | a literal `${` |

They are filled in after the YAML is read, also in queries and templates. A file that the key `file` names is used as it is. Values from
variables and files are never shown in an error, a log or a record ([security](security.md#secrets)).

A value from a variable becomes what its key takes: text, a number, a duration, a size, a share, `true` or `false`. Quotes make no difference, except
for keys that take text and numbers (such as headers), where they make it text. In a map on one line a variable needs quotes: `{removed: \"${LIMIT}\"}`.

A duration is a number with its unit: `500ms`, `30s`, `5m`, `2h`, `7d`. A number without a unit is an error, also `0`. Only keys with the
unit in their name, and AMQP's `expiration` under `properties` (milliseconds), take a number without a unit.

Paths of files are relative to the configuration file that contains them. Anchors (`&name`), aliases (`*name`) and merge keys (`<<`) work.
Top-level keys that begin with `x-` can hold anchors and have no other effect.

## Values that vary by row

Where a key accepts `{column: …}` or `{template: …}`, its value is a literal, `{column: name}` for the value of a column, or
`{template: \"…\"}` for a Liquid template with `row`, `previous`, `changed`, `op`, `key`, `sync`, `run` and `change_id`.
";

/// The page.
pub fn reference(schema: &Value) -> String {
    let mut page = Page { root: schema, out: INTRODUCTION.to_owned(), later: Vec::new() };
    for (section, of) in schema["properties"].as_object().into_iter().flatten() {
        page.section(section, of);
    }
    // Every paragraph ends with one line break, and so does the page.
    page.out
}

struct Page<'s> {
    root: &'s Value,
    out: String,
    /// Maps that are described after the map that contains them.
    later: Vec<(String, &'s Value)>,
}

impl<'s> Page<'s> {
    fn section(&mut self, name: &str, of: &'s Value) {
        self.line(&format!("\n## `{name}`\n"));
        self.line(&prose(of));
        let each = &of["additionalProperties"];
        if let Some(kinds) = each["oneOf"].as_array() {
            for kind in kinds {
                let path = format!("{name}.NAME");
                self.map(
                    &format!("`{path}` with `type: {}`", kind["title"].as_str().unwrap_or("")),
                    &path,
                    kind,
                );
            }
        } else if each["items"].is_object() {
            self.inner(&format!("{name}.NAME"), each);
        } else if each.is_object() {
            let path = format!("{name}.NAME");
            self.map(&format!("`{path}`"), &path, each);
        } else if let Some(map) = forms(of).find(|form| form["properties"].is_object()) {
            self.line("");
            self.keys(name, map);
        }
        while !self.later.is_empty() {
            for (path, of) in std::mem::take(&mut self.later) {
                self.map(&format!("`{path}`"), &path, of);
            }
        }
    }

    fn map(&mut self, title: &str, path: &str, of: &'s Value) {
        self.line(&format!("\n### {title}\n"));
        let text = prose(of);
        if !text.is_empty() {
            self.line(&format!("{text}\n"));
        }
        self.keys(path, of);
    }

    fn keys(&mut self, path: &str, of: &'s Value) {
        let required: Vec<&str> =
            of["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in of["properties"].as_object().into_iter().flatten() {
            if !property["const"].is_null() {
                continue;
            }
            let needed = if required.contains(&key.as_str()) { ", required" } else { "" };
            self.line(&format!(
                "- **`{key}`** ({}{needed}). {}",
                expects(self.root, property),
                own_prose(property, self.root)
            ));
            self.choices(property);
            self.inner(&format!("{path}.{key}"), property);
        }
    }

    /// The possible names, if each has its own comment.
    fn choices(&mut self, property: &'s Value) {
        for choice in self.resolved(property)["oneOf"].as_array().into_iter().flatten() {
            if let (Some(name), text) = (choice["const"].as_str(), prose(choice)) {
                self.line(&format!("  - `{name}`: {text}"));
            }
        }
    }

    /// Collects the maps inside a key, which are described later.
    fn inner(&mut self, path: &str, schema: &'s Value) {
        // An entry of `on` has the keys of its sync, which are on the page already.
        if schema["$ref"] == "#/$defs/Trigger" {
            return;
        }
        // Steps contain steps.
        if schema["$ref"] == "#/$defs/Step" && path != "pipelines.NAME[]" {
            return;
        }
        let schema = self.resolved(schema);
        for branch in schema["anyOf"].as_array().into_iter().flatten() {
            self.inner(path, branch);
        }
        if schema["items"].is_object() {
            self.inner(&format!("{path}[]"), &schema["items"]);
        }
        if schema["additionalProperties"].is_object() {
            self.inner(&format!("{path}.NAME"), &schema["additionalProperties"]);
        }
        // A value by column or template is described once, above.
        if schema["properties"].is_object() && !is_value(schema) {
            let known = self.later.iter().any(|(other, _)| other == path);
            let is_on = schema["properties"]["added"]["anyOf"].is_array() && path == "syncs.NAME.on";
            if !known && !is_on {
                self.later.push((path.to_owned(), schema));
            }
        }
    }

    fn resolved(&self, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            Some(name) => &self.root["$defs"][name],
            None => schema,
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        writeln!(self.out, "{}", text.trim_end_matches(' ')).ok();
    }
}

/// A schema and its alternatives.
fn forms(schema: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(schema).chain(schema["anyOf"].as_array().into_iter().flatten())
}

/// The comment of a key, or the comment of its type.
fn own_prose(property: &Value, root: &Value) -> String {
    let own = prose(property);
    match property["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        Some(name) if own.is_empty() => prose(&root["$defs"][name]),
        Some(_) | None => own,
    }
}

/// A comment in one line, without its line breaks.
fn prose(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ")
}
