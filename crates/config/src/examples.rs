//! The configurations in the documentation, so that a test can tell that all of them are right.

use std::path::{Path, PathBuf};

/// One example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The page.
    pub page: PathBuf,
    /// The line after the fence, from 1.
    pub line: usize,
    /// The text, without the page's indentation.
    pub text: String,
    /// Whether it is a part of a configuration, marked ```` ```yaml part ````: it is parsed and not checked further.
    pub part: bool,
}

/// All blocks that are marked `yaml` in the Markdown pages under some paths, in order of pages and lines.
///
/// # Errors
/// A page cannot be read, or a block is not closed.
pub fn examples(paths: &[&Path]) -> std::io::Result<Vec<Example>> {
    let mut pages = Vec::new();
    for path in paths {
        pages_of(path, &mut pages)?;
    }
    pages.sort();
    let mut examples = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page)?;
        examples.extend(blocks(&page, &text)?);
    }
    Ok(examples)
}

fn pages_of(path: &Path, pages: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            pages_of(&entry?.path(), pages)?;
        }
    } else if path.extension().is_some_and(|ending| ending == "md") {
        pages.push(path.to_owned());
    }
    Ok(())
}

fn blocks(page: &Path, text: &str) -> std::io::Result<Vec<Example>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Option<Example>)> = None;
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace();
                let is_yaml = matches!(words.next(), Some("yaml" | "yml"));
                let part = words.any(|word| word == "part");
                let example = Example { page: page.to_owned(), line: index + 2, text: String::new(), part };
                open = Some((indent, is_yaml.then_some(example)));
            }
            (Some((_, example)), Some(_)) => {
                found.extend(example.take());
                open = None;
            }
            (Some((indent, Some(example))), None) => {
                example.text.push_str(line.get((*indent).min(line.len())..).unwrap_or(line));
                example.text.push('\n');
            }
            (_, None) => {}
        }
    }
    match open {
        None => Ok(found),
        Some(_) => Err(std::io::Error::other(format!("{}: a block is not closed", page.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found() {
        let text =
            "text\n```yaml\na: 1\n```\n```sh\nls\n```\n- item\n  ```yaml part\n  b:\n    c: 2\n  ```\n";
        let found = blocks(Path::new("page.md"), text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, &*found[0].text, found[0].part), (3, "a: 1\n", false));
        assert_eq!((found[1].line, &*found[1].text, found[1].part), (10, "b:\n  c: 2\n", true));
        assert!(blocks(Path::new("page.md"), "```yaml\na: 1\n").is_err());
    }
}
