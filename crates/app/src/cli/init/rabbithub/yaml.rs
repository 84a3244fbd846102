//! How what was taken over of RabbitHub is written: a `warren.yaml` that begins with what is not in it.

use std::fmt::Write as _;

use serde_json::Value;

use super::Taken;

/// The configuration.
pub(super) fn written(taken: &Taken) -> String {
    let mut yaml = String::from(
        "# Made of RabbitHub's configuration by `warren init --from-rabbithub`. docs/migration-rabbithub.md has the other steps.\n",
    );
    if !taken.notes.is_empty() {
        yaml.push_str("#\n# Not taken over, or otherwise than before:\n");
        for note in &taken.notes {
            // A name of the old file may have anything in it, and a comment ends with its line.
            let plain = |c: char| {
                if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c }
            };
            let note: String = note.chars().map(plain).collect();
            writeln!(yaml, "# - {note}").ok(); // a text takes all that is written to it
        }
    }
    let listen = quoted(&taken.listen.as_deref().unwrap_or("0.0.0.0:15670").into());
    let (amqp, management) = (taken.amqp_port, taken.management_port);
    write!(yaml, "\nhttp:\n  listen: {listen}\n").ok();
    if !taken.listen_tls.is_empty() {
        yaml.push_str("  tls:\n");
        entries(&mut yaml, 4, &taken.listen_tls);
    }
    write!(
        yaml,
        "\nbrokers:\n  rabbit:\n    type: rabbitmq\n    \
         # The login must have rights in all vhosts, and the tag `administrator` for the management API.\n    \
         url: \"${{RABBIT_URL:-amqp://guest:guest@localhost:{amqp}}}\"\n    \
         management_url: \"${{RABBIT_MANAGEMENT_URL:-http://localhost:{management}}}\"\n\n\
         hub:\n  broker: rabbit\n  compat: rabbithub\n  \
         # Where callbacks may lead besides public addresses:\n  \
         # allow_callbacks: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \"http://localhost:8080/\"]\n"
    )
    .ok();
    entries(&mut yaml, 2, &taken.hub);
    if !taken.client.is_empty() || !taken.client_tls.is_empty() {
        yaml.push_str("  http_client_options:\n");
        entries(&mut yaml, 4, &taken.client);
        if !taken.client_tls.is_empty() {
            yaml.push_str("    tls:\n");
            entries(&mut yaml, 6, &taken.client_tls);
        }
    }
    if !taken.request.is_empty() {
        yaml.push_str("  http_request_options:\n");
        entries(&mut yaml, 4, &taken.request);
    }
    yaml
}

/// Each key once: the last one counted.
fn entries(yaml: &mut String, indent: usize, entries: &[(String, Value)]) {
    for (at, (key, value)) in entries.iter().enumerate() {
        if entries[at + 1..].iter().all(|(later, _)| later != key) {
            writeln!(yaml, "{:indent$}{key}: {}", "", quoted(value)).ok();
        }
    }
}

/// A value as YAML takes it in any place: as JSON, with what would be filled in doubled.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => Value::from(text.replace("${", "$${")).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(quoted).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
