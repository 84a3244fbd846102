//! Runs the cases in `tests/cases`: templates with data and what must come of them.
//!
//! A case begins with `=== name`. Lines with `@` before the template set it up: `@data JSON`, `@json`,
//! `@lax`, `@partial NAME TEXT` (`\n` for a line break). `--->` parts the template from the result,
//! `---!` from a part of the error, which may come of parsing or of rendering.

use std::path::Path;

use warren_liquid::{Error, Format, Options, Partials, Template};

use crate::data::{Data, Entries};

#[derive(Default)]
struct Case {
    name: String,
    data: Option<String>,
    options: Options,
    template: String,
    fails: bool,
    expected: String,
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut partials: Vec<(String, String)> = Vec::new();
    let mut part = 0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            let options = Options { format: Format::Text, ..Options::default() };
            cases.push(Case { name: name.to_owned(), options, ..Case::default() });
            partials.clear();
            part = 0;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        match (part, line) {
            (0, line) if line.starts_with("@data ") => case.data = Some(line[6..].to_owned()),
            (0, "@json") => case.options.format = Format::Json,
            (0, "@lax") => case.options.lax = true,
            (0, line) if line.starts_with("@partial ") => {
                let (name, body) = line[9..].split_once(' ').expect("a name and a text");
                partials.push((name.to_owned(), body.replace("\\n", "\n")));
                case.options.partials = partials.clone().into_iter().collect::<Partials>();
            }
            (0 | 1, "--->" | "---!") => {
                case.fails = line == "---!";
                part = 2;
            }
            (0 | 1, line) => {
                if part == 1 {
                    case.template.push('\n');
                }
                case.template.push_str(line);
                part = 1;
            }
            (_, line) => {
                case.expected.push_str(line);
                case.expected.push('\n');
            }
        }
    }
    for case in &mut cases {
        // One line break ends the last line; blank lines between cases are no part of the result.
        let length = case.expected.trim_end_matches('\n').len();
        case.expected.truncate(length);
    }
    cases
}

fn render(case: &Case) -> Result<String, Error> {
    let template = Template::parse(&case.template, &case.options)?;
    let globals = match case.data.as_deref().map(Data::parse) {
        Some(Data::Map(entries)) => entries,
        Some(other) => panic!("{}: the data is no object: {other:?}", case.name),
        None => Entries::default(),
    };
    let mut out = Vec::new();
    template.render(&globals, &mut out)?;
    Ok(String::from_utf8(out).expect("templates write UTF-8"))
}

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for case in parse(&text) {
            count += 1;
            let result = render(&case);
            let right = match &result {
                Ok(text) => !case.fails && text.trim_end_matches('\n') == case.expected,
                Err(error) => case.fails && error.to_string().contains(&case.expected),
            };
            if !right || (case.fails && case.expected.is_empty()) {
                let shown = result.map_err(|error| error.to_string());
                wrong.push(format!(
                    "{file}: {}\n  expected {:?}\n  got      {shown:?}",
                    case.name, case.expected
                ));
            }
        }
    }
    assert!(count > 300, "only {count} cases were found");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}
