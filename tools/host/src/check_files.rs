//! `host check-files`: rules that hold for every source file: its length, its first line, no unfinished places.
//! Called by `make check`.

use crate::failure::{self, Failure};
use crate::tree::Tree;
use std::path::{Path, PathBuf};

/// No source file is longer, in lines.
const MAX_LINES: usize = 600;
/// Folders whose source files are checked.
const ROOMS: &[&str] = &["boot", "kernel", "tests", "tools"];
/// Marks of unfinished work. Split so that this file passes its own check.
const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME")];

/// Command-line options of `host check-files`: none.
#[derive(clap::Args, Debug)]
pub struct Options {}

/// Checks every source file, and prints a line for each violation.
pub fn main(tree: &Tree, _: &Options) -> Result<(), Failure> {
    let mut files = Vec::new();
    for room in ROOMS {
        sources(&tree.root.join(room), &mut files)?;
    }
    let mut found = Vec::new();
    for path in &files {
        let text = String::from_utf8_lossy(&failure::read(path)?).into_owned();
        let name = path.strip_prefix(&tree.root).unwrap_or(path).display();
        let is_rust = path.extension().is_some_and(|e| e == "rs");
        found.extend(violations(&text, is_rust).into_iter().map(|v| format!("{name}{v}")));
    }
    for line in &found {
        println!("{line}");
    }
    println!("source files: {} checked, {} violations", files.len(), found.len());
    if found.is_empty() { Ok(()) } else { Err(Failure::Bad("source files break the rules above".into())) }
}

/// All source files below `folder`, sorted, build output left out.
pub fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::Usage(format!("{}: {e}", folder.display()));
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).map_err(fail)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.') || n == "target");
        if path.is_dir() && !hidden {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|e| matches!(e.to_str(), Some("rs" | "c" | "h" | "S" | "ld" | "sh"))) {
            files.push(path);
        }
    }
    Ok(())
}

fn violations(text: &str, is_rust: bool) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!(": {lines} lines, more than {MAX_LINES}"));
    }
    if is_rust && !text.starts_with("//!") {
        found.push(":1: the first line does not say what the file is (//!)".into());
    }
    for (number, line) in text.lines().enumerate() {
        for mark in UNFINISHED {
            if line.contains(mark) {
                found.push(format!(":{}: {mark}", number + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_seen() {
        assert_eq!(violations("//! A file.\nfn f() {}\n", true), Vec::<String>::new());
        assert_eq!(violations("fn f() {}\n", true).len(), 1);
        assert_eq!(violations("int f;\n", false).len(), 0);
        assert_eq!(violations(&"//!\n".repeat(MAX_LINES), true).len(), 0);
        assert_eq!(violations(&"//!\n".repeat(MAX_LINES + 1), true).len(), 1);
        for mark in UNFINISHED {
            assert_eq!(violations(&format!("//! A file.\n{mark}\n"), true), [format!(":2: {mark}")]);
        }
    }
}
