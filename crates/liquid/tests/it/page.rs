//! Runs every example of `docs/templates.md`.
//!
//! A `row` block is the data of all examples after it, a `partial NAME` block a partial; each `liquid`
//! block (with `text` or `lax` behind it) is followed by its `result` or a part of its `error`. Of tables
//! with an example and a result each row is run.

use std::path::Path;

use warren_liquid::{Error, Format, Names, Options, Partials, Template, vocabulary};

use crate::data::{Data, Entries};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/templates.md");
    std::fs::read_to_string(path).expect("the page of the templates")
}

/// Fenced blocks: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, Vec<&str>)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => {
                let (kind, lines) = open.take().expect("an open block");
                blocks.push((kind, lines.join("\n")));
            }
            (Some(kind), None) => open = Some((kind.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks
}

fn row(page: &str) -> Entries {
    let (_, text) = blocks(page).into_iter().find(|(kind, _)| kind == "row").expect("a row");
    match Data::parse(&text) {
        Data::Map(entries) => entries,
        other => panic!("the row is no object: {other:?}"),
    }
}

fn render(source: &str, options: &Options, globals: &Entries) -> Result<String, Error> {
    let template = Template::parse(source, options)?;
    let tops = ["row", "previous", "changed", "op", "key", "sync", "run", "change_id"];
    let columns = ["id", "name", "email", "age", "price", "tags", "note", "born", "seen", "file", "payload"];
    if let Some(error) = template.check(&Names { tops: &tops, columns: &columns }).into_iter().next() {
        return Err(error);
    }
    let mut out = Vec::new();
    template.render(globals, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

#[test]
fn every_example_of_the_page_is_right() {
    let page = page();
    let globals = row(&page);
    let mut partials: Vec<(String, String)> = Vec::new();
    let mut example: Option<(Options, String)> = None;
    let mut count = 0;
    for (kind, text) in blocks(&page) {
        let mut words = kind.split(' ');
        match words.next() {
            Some("row") => {}
            Some("partial") => partials.push((words.next().expect("a name").to_owned(), text)),
            Some("liquid") => {
                assert!(example.is_none(), "an example without a result before:\n{text}");
                let words: Vec<_> = words.collect();
                let format = if words.contains(&"text") { Format::Text } else { Format::Json };
                let partials = partials.iter().cloned().collect::<Partials>();
                let options = Options { format, lax: words.contains(&"lax"), partials, ..Options::default() };
                example = Some((options, text));
            }
            Some(kind @ ("result" | "error")) => {
                let (options, source) = example.take().expect("an example before its result");
                match (render(&source, &options, &globals), kind) {
                    (Ok(result), "result") => {
                        assert_eq!(result.trim_end_matches('\n'), text, "{source}");
                    }
                    (Err(error), "error") => {
                        assert!(error.to_string().contains(&text), "{source}\n{error}\n{text}");
                    }
                    (other, _) => panic!("{source}\n{other:?}"),
                }
                count += 1;
            }
            other => panic!("a block of an unknown kind: {other:?}"),
        }
    }
    assert!(count >= 20, "only {count} examples were found");
}

/// The cells of a table's row; `\|` is no border.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_matches('|').replace("\\|", "\u{1}");
    line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn every_filter_is_on_the_page_with_an_example_that_is_right() {
    let page = page();
    let globals = row(&page);
    let options = Options { format: Format::Text, ..Options::default() };
    let mut shown = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells = cells(line);
        let [name, _, example, result] = &cells[..] else {
            continue;
        };
        let (Some(name), Some(example), Some(result)) = (code(name), code(example), code(result)) else {
            continue;
        };
        assert!(example.contains(name), "the example of `{name}` is of something else");
        assert_eq!(render(example, &options, &globals).as_deref(), Ok(result), "{example}");
        shown.push(name.to_owned());
    }
    let (_, filters) = vocabulary();
    for filter in filters {
        assert!(shown.iter().any(|shown| shown == filter), "`{filter}` is not on the page");
    }
}

#[test]
fn every_tag_is_on_the_page() {
    let page = page();
    for tag in vocabulary().0 {
        let found = page.match_indices(tag).any(|(at, _)| {
            page[..at].ends_with(['`', ' ', ',']) && page[at + tag.len()..].starts_with(['`', ' ', ','])
        });
        assert!(found, "`{tag}` is not on the page");
    }
}
