//! Files of expected output.

use std::fs;
use std::path::Path;

/// Compares a text with a file, or writes the file where `WARREN_BLESS` is set.
pub fn compare(path: &Path, text: &str) {
    if std::env::var_os("WARREN_BLESS").is_some() {
        let folder = path.parent().expect("it is in a folder");
        fs::create_dir_all(folder).expect("the folder can be made");
        fs::write(path, text).expect("the file can be written");
        return;
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    assert!(
        wanted == text,
        "{} is not what it should be; it should be\n{wanted}\nand is\n{text}\nRun the test with WARREN_BLESS=1 to keep it.",
        path.display()
    );
}
