//! An entry of the configuration once more, with the files that it names as they are now.
//!
//! A password that was replaced in its file is used at the next login. The texts of the configuration and the variables stay as
//! they were read at start, so that nothing else can change meanwhile.

use std::sync::Arc;

use serde_json::Value;
use warren_connectors::{BrokerConfig, SourceConfig};
use warren_engine::finding::Severity;

use super::de::At;
use super::fill::{Environment, fill};
use super::hidden;
use super::text::Files;
use super::tree::{Entry, Node, NodeKind};
use super::walk::Walk;

/// A configuration as it was written, before variables and files were filled in.
pub struct Written {
    pub schema: &'static Value,
    pub tree: Node,
    pub files: Files,
    pub environment: Environment,
}

impl Written {
    /// Makes an entry of `brokers` read its files again before each login.
    pub fn renew_broker(self: &Arc<Self>, name: &str, config: BrokerConfig) -> BrokerConfig {
        if !self.names_files("brokers", name) {
            return config;
        }
        let (written, name, kind) = (self.clone(), name.to_owned(), config.kind());
        config.renewed_by(move || BrokerConfig::read(kind, At(&written.now("brokers", &name)?))?.ok())
    }

    /// Makes an entry of `sources` read its files again before each login.
    pub fn renew_source(self: &Arc<Self>, name: &str, config: SourceConfig) -> SourceConfig {
        if !self.names_files("sources", name) {
            return config;
        }
        let (written, name, kind) = (self.clone(), name.to_owned(), config.kind());
        config.renewed_by(move || SourceConfig::read(kind, At(&written.now("sources", &name)?))?.ok())
    }

    fn names_files(&self, section: &str, name: &str) -> bool {
        self.tree.get(section).and_then(|section| section.get(name)).is_some_and(names_file)
    }

    /// The entry as it is now; `None`: a file cannot be read, or what it holds does not fit.
    fn now(&self, section: &str, name: &str) -> Option<Node> {
        let of_section = self.tree.entry(section)?;
        let entry = of_section.value.entry(name)?;
        // Alone: a file that another entry names and that is missing now concerns only that one.
        let alone = |span, entry: Entry| Node { span, kind: NodeKind::Map(vec![entry]) };
        let value = alone(of_section.value.span, entry.clone());
        let mut tree = alone(self.tree.span, Entry { value, ..of_section.clone() });
        let mut faults = Vec::new();
        fill(&mut tree, &self.files, &self.environment, &mut faults);
        let filled = hidden::gather(&tree);
        let mut walk = Walk::new(self.schema, &self.files);
        let start = tree.span.at_start();
        walk.check(self.schema, &mut tree, "", start);
        // A new password stays out of errors as the old one does.
        hidden::hide(&filled, &self.tree, &walk.public, self.schema);
        faults.extend(walk.faults);
        if faults.iter().any(|fault| fault.severity == Severity::Error) {
            return None;
        }
        Some(tree.get(section)?.get(name)?.clone())
    }
}

fn names_file(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Scalar(scalar) => scalar.text.contains("${file:"),
        NodeKind::List(items) => items.iter().any(names_file),
        NodeKind::Map(entries) => entries.iter().any(|entry| names_file(&entry.value)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use warren_connectors::rabbitmq;

    use crate::load_with;

    fn rabbit(folder: &Path) -> rabbitmq::Config {
        let path = folder.join("warren.yaml");
        let text = "brokers:\n  mq: {type: rabbitmq, host: h, username: \"${file:user}\", password: \"x${file:pw}\"}\n  \
                    other: {type: rabbitmq, url: \"${file:url}\"}\n";
        std::fs::write(&path, text).unwrap();
        let mut project = load_with(&path, &std::iter::empty::<(String, String)>().collect()).unwrap();
        // What is written later does not count.
        std::fs::write(&path, "brokers: {}").unwrap();
        match project.brokers.remove("mq").unwrap() {
            warren_connectors::BrokerConfig::Rabbitmq(config) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_entry_is_read_again_with_its_files_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("user", "ann\n");
        write("pw", "one");
        write("url", "amqp://h");
        let config = rabbit(folder.path());
        let now = || {
            let config = config.renew.now(&config);
            (config.username.unwrap(), config.password.unwrap().reveal().to_owned())
        };
        assert_eq!(now(), ("ann".to_owned(), "xone".to_owned()));
        // By rename, and with a line break at its end.
        write("pw.new", "two\r\n");
        std::fs::rename(folder.path().join("pw.new"), folder.path().join("pw")).unwrap();
        write("user", "bob");
        assert_eq!(now(), ("bob".to_owned(), "xtwo".to_owned()));
        // Missing for a moment: as it was read last. A file of another entry does not matter.
        std::fs::remove_file(folder.path().join("pw")).unwrap();
        std::fs::remove_file(folder.path().join("url")).unwrap();
        assert_eq!(now(), ("bob".to_owned(), "xtwo".to_owned()));
        write("pw", "three");
        assert_eq!(now(), ("bob".to_owned(), "xthree".to_owned()));
    }
}
