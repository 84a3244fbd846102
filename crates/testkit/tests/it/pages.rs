//! The pages of the documentation: every link inside the repository leads somewhere, the book holds every page, and the language is plain.
//! Each test lists all faults at once, with their places. Needs no server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use warren_testkit::root;

/// Words of no technical text, from the house style. A line may hold one where it is a name or what a program prints: `(page, line's text)`.
const BANNED: [&str; 24] = [
    "shall",
    "told",
    "tell",
    "tells",
    "whoever",
    "nobody who",
    "mend",
    "mends",
    "mended",
    "stands in",
    "borne",
    "goes on with",
    "go on with",
    "given up",
    "gives up",
    "asked again",
    "of ours",
    "of its own",
    "so many",
    "hear of",
    "hears of",
    "beside",
    "is no good",
    "is none of",
];

/// Where a banned word is the right one.
const ALLOWED: [(&str, &str); 1] = [("docs/triggers.md", "of its own content")];

struct Page {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

/// All pages for people.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let mut waiting = vec![root().join("docs")];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    for entry in fs::read_dir(root()).expect("the root can be read") {
        let path = entry.expect("the root can be read").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    assert!(pages.len() > 50, "hardly any pages found: have they moved?");
    let read = |path: PathBuf| Page {
        text: fs::read_to_string(&path).expect("the page can be read"),
        path: path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned(),
    };
    pages.into_iter().map(read).collect()
}

/// The lines of a page outside fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// A line without what stands in backquotes.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The anchors of a page: those that GitHub and mdBook make of its headings, and its own.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        if let Some((id, _)) = line.split_once("<a id=\"").and_then(|(_, rest)| rest.split_once('"')) {
            anchors.insert(id.to_owned());
        }
        let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let Some(heading) = heading.strip_prefix(' ') else { continue };
        // A link in a heading counts with its text.
        let mut plain = String::new();
        let mut rest = heading;
        while let Some(at) = rest.find("](") {
            plain.push_str(&rest[..at]);
            rest = rest[at..].split_once(')').map_or("", |(_, after)| after);
        }
        plain.push_str(rest);
        let slug: String = plain
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let number = seen.entry(slug.clone()).or_default();
        anchors.insert(if *number == 0 { slug } else { format!("{slug}-{number}") });
        *number += 1;
    }
    anchors
}

/// The targets of the links of a page, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        let mut rest = &*line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some((target, after)) = rest.split_once(')') else { break };
            links.push((number, target.trim().to_owned()));
            rest = after;
        }
    }
    links
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn dead_links(pages: &[Page]) -> Vec<String> {
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (&*page.path, anchors(&page.text))).collect();
    let mut faults = Vec::new();
    for page in pages {
        for (line, target) in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((&*target, None), |(file, a)| (file, Some(a)));
            let path = if file.is_empty() {
                PathBuf::from(&page.path)
            } else {
                normal(&Path::new(&page.path).parent().unwrap_or(Path::new("")).join(file))
            };
            let path = path.to_string_lossy().into_owned();
            if !root().join(&path).exists() {
                faults.push(format!("{}:{line}: `{target}` leads nowhere: there is no {path}", page.path));
                continue;
            }
            let Some(anchor) = anchor else { continue };
            if anchors.get(&*path).is_some_and(|anchors| !anchors.contains(anchor)) {
                faults.push(format!("{}:{line}: {path} has no heading `#{anchor}`", page.path));
            }
        }
    }
    faults
}

#[test]
fn every_link_inside_the_repository_leads_somewhere() {
    none(&dead_links(&pages()));
}

#[test]
fn dead_links_are_found() {
    let page = |path: &str, text: &str| Page { path: path.into(), text: text.into() };
    let pages = [
        page("README.md", "# A\n[one](docs/sync.md#there) [two](docs/nowhere.md) [three](#gone) `[x](y)`\n"),
        page(
            "docs/sync.md",
            "## There\n## There\n[up](../README.md#a) [again](#there-1)\n```\n[no](link)\n```\n",
        ),
    ];
    assert_eq!(
        dead_links(&pages),
        [
            "README.md:2: `docs/nowhere.md` leads nowhere: there is no docs/nowhere.md",
            "README.md:2: README.md has no heading `#gone`",
        ]
    );
}

/// Banned words in a line, as whole words.
fn banned_in(line: &str) -> Vec<&'static str> {
    let line = line.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |word: &str, at: usize| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    };
    let holds = |word: &&str| line.match_indices(*word).any(|(at, _)| whole(word, at));
    BANNED.into_iter().filter(|word| holds(word)).collect()
}

#[test]
fn pages_are_written_in_plain_english() {
    let mut faults = Vec::new();
    for page in pages() {
        for (number, line) in prose(&page.text) {
            let allowed = |word: &str| {
                ALLOWED
                    .iter()
                    .any(|(path, text)| *path == page.path && line.contains(text) && text.contains(word))
            };
            for word in banned_in(&without_code(line)).into_iter().filter(|word| !allowed(word)) {
                faults.push(format!("{}:{number}: `{word}`: {}", page.path, line.trim()));
            }
        }
    }
    for (path, text) in ALLOWED {
        let page = fs::read_to_string(root().join(path)).unwrap_or_default();
        if !page.contains(text) {
            faults.push(format!("{path} does not hold `{text}` any more: remove it from ALLOWED"));
        }
    }
    none(&faults);
}

#[test]
fn banned_words_are_found_as_words() {
    assert_eq!(banned_in("It shall be told"), ["shall", "told"]);
    assert_eq!(banned_in("a shallow cistold retell"), [""; 0]);
}

/// The book has a chapter for each page in `docs`.
#[test]
fn the_book_has_every_page() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).expect("there is a summary");
    let chapters: BTreeSet<String> = links(&summary).into_iter().map(|(_, target)| target).collect();
    let faults: Vec<String> = pages()
        .iter()
        .filter_map(|page| page.path.strip_prefix("docs/"))
        .filter(|page| *page != "SUMMARY.md" && !chapters.contains(*page))
        .map(|page| format!("docs/SUMMARY.md has no chapter {page}"))
        .collect();
    none(&faults);
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
