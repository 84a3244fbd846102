//! What a hostile or a huge file may cost.

use std::fs;
use std::time::{Duration, Instant};

use warren_config::{Colours, Environment, load_with};

/// Loads a text and returns what is shown; it must not take long. The bound is for debug builds on a loaded machine:
/// what it keeps out is a cost that grows with the square of the file.
fn shown(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    fs::write(&path, text).unwrap();
    let begun = Instant::now();
    let shown = match load_with(&path, &Environment::default()) {
        Ok(_) => String::new(),
        Err(faults) => faults.render(Colours::Off),
    };
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    shown
}

#[test]
fn a_file_of_ten_megabytes_is_read() {
    let mut text = "models:\n".to_owned();
    let mut number = 0;
    while text.len() < 10 << 20 {
        number += 1;
        text += &format!(
            "  model{number}: {{source: shop, primary_key: id, sql: \"SELECT {}\"}}\n",
            "x".repeat(200)
        );
    }
    text += "sources: {shop: {type: postgres, url: postgres://localhost/shop}}\n";
    assert_eq!(shown(&text), "");
}

#[test]
fn a_long_line_is_read() {
    let entries = vec!["é"; 1 << 19].join(", ");
    let shown = shown(&format!("x-list: [{entries}]\nsorces: {{}}\n"));
    assert!(shown.contains("did you mean `sources`?"), "{shown}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let shown = shown(&"# comment\n".repeat(2 << 20));
    assert!(shown.contains("is larger than 16 MiB"), "{shown}");
}

#[test]
fn depth_is_bounded() {
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 20),
        "- ".repeat(1 << 20),
        "? ".repeat(1 << 20),
        (0..1000).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>(),
    ] {
        assert!(shown(&text).contains("config-syntax"), "{}", shown(&text));
    }
}

#[test]
fn an_alias_bomb_does_not_burst() {
    let mut text = "x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        text += &format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    assert!(shown(&text).contains("aliases of this file stand for more than"), "{}", shown(&text));
}

#[test]
fn thousands_of_faults_are_counted_and_not_shown() {
    let text: Vec<String> = (0..20_000).map(|number| format!("unknown{number}: 1")).collect();
    let shown = shown(&text.join("\n"));
    assert!(shown.contains("and 19900 more"), "{shown}");
    assert!(shown.ends_with("20000 errors in the configuration\n"), "{shown}");
}
