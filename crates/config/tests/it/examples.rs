//! Every configuration in the documentation is right.

use std::path::{Path, PathBuf};

use warren_config::examples::examples;
use warren_config::text::Files;
use warren_config::{Colours, Environment, load_with, tree};

#[test]
fn every_config_example_in_the_docs_loads() {
    let root = super::crate_folder().join("../..");
    let pages: Vec<PathBuf> = ["docs", "README.md", "ARCHITECTURE.md"]
        .iter()
        .map(|page| root.join(page))
        .filter(|page| page.exists())
        .collect();
    let pages: Vec<&Path> = pages.iter().map(PathBuf::as_path).collect();
    let found = examples(&pages).unwrap();
    assert!(!found.is_empty(), "no example was found");
    // What an example may name, so that it need not invent defaults for it.
    let variables = [
        "SHOP_URL",
        "RABBIT_URL",
        "RABBIT_MANAGEMENT_URL",
        "SHOP_PASSWORD",
        "RABBIT_PASSWORD",
        "WARREN_EXTERNAL_ID",
    ];
    let value = |name: &str| match name {
        "RABBIT_URL" => "amqp://localhost",
        "RABBIT_MANAGEMENT_URL" => "http://localhost:15672",
        _ => "postgres://localhost/shop",
    };
    let environment: Environment = variables.iter().map(|name| (*name, value(name))).collect();
    let mut wrong = Vec::new();
    for example in found {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, &example.text).unwrap();
        let place = format!("{}, from line {}", example.page.display(), example.line);
        if example.part {
            let mut files = Files::default();
            let file = files.add(&path, example.text.clone());
            if let Err(faults) = tree::parse(&files, file) {
                wrong.push(format!("{place}: {faults:?}"));
            }
        } else if let Err(faults) = load_with(&path, &environment)
            // The certificates that an example names are not on this machine.
            && !faults.iter().all(|fault| fault.code == warren_engine::codes::TLS_FAILED)
        {
            wrong.push(format!("{place}:\n{}", faults.render(Colours::Off)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
