//! `host check-arrows`: which part of the kernel may use which, as `DESIGN.md` section 3 draws it. Looks at every
//! `crate::…` in kernel/src. Called by `make check`.

use crate::check_files;
use crate::failure::{self, Failure};
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::path::Path;

/// Groups from left to right: a part may use every part of a group further right.
const GROUPS: &[&[&str]] = &[
    &["main"],
    &["syscall"],
    &["fs", "tty", "process"],
    &["isolation", "sched", "mm", "time", "rcu", "trace", "text_patch", "smp", "console"],
    &["context_tracking", "static_key", "percpu"],
    &["arch", "limine"],
];
/// Groups whose parts may use each other without more ado.
const OPEN_GROUPS: &[usize] = &[2, 4, 5];
/// Arrows inside the middle group, and those of the parts that stand outside the groups.
const ARROWS: &[(&str, &[&str])] = &[
    ("isolation", &["trace", "console"]),
    ("sched", &["time", "rcu", "trace", "console"]),
    ("mm", &["smp", "trace", "console"]),
    ("time", &["trace", "console"]),
    ("rcu", &["smp", "trace", "console"]),
    ("trace", &["console"]),
    ("text_patch", &["smp", "trace", "console"]),
    ("smp", &["trace", "console"]),
    ("console", &["trace"]),
    (
        "entry",
        &[
            "sched",
            "time",
            "smp",
            "trace",
            "mm",
            "process",
            "syscall",
            "context_tracking",
            "static_key",
            "percpu",
            "arch",
        ],
    ),
    ("panic", &["arch"]),
];
/// Files that may read everyone: they show the kernel's state.
const READERS: &[&str] = &["main.rs", "fs/proc", "fs/sys"];
/// Further arrows, each with its reason: (file or folder below kernel/src, part that it uses, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Command-line options of `host check-arrows`: none.
#[derive(clap::Args, Debug)]
pub struct Options {}

/// Checks every file of the kernel, and prints a line for each arrow that is not allowed.
pub fn main(tree: &Tree, _: &Options) -> Result<(), Failure> {
    let folder = tree.root.join("kernel/src");
    let mut files = Vec::new();
    check_files::sources(&folder, &mut files)?;
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut used_exceptions = vec![false; EXCEPTIONS.len()];
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let text = String::from_utf8_lossy(&failure::read(path)?).into_owned();
        let file = path.strip_prefix(&folder).unwrap_or(path);
        let from = part_of(file);
        for (line, to) in uses(&text) {
            if allowed(&file.to_string_lossy(), &from, &to) {
                continue;
            }
            match EXCEPTIONS.iter().position(|e| file.starts_with(e.0) && e.1 == to) {
                Some(i) => used_exceptions[i] = true,
                None => wrong.entry(format!("{from} -> {to}")).or_default().push(format!("{}:{line}", file.display())),
            }
        }
    }
    for (arrow, places) in &wrong {
        println!("{arrow}: {}", places.join(" "));
    }
    let stale: Vec<_> = EXCEPTIONS.iter().zip(&used_exceptions).filter(|(_, used)| !**used).collect();
    for ((file, to, _), _) in &stale {
        println!("exception {file} -> {to} is not needed any more");
    }
    println!("import arrows: {} wrong, {} exceptions", wrong.len(), EXCEPTIONS.len());
    if wrong.is_empty() && stale.is_empty() { Ok(()) } else { Err(Failure::Bad("import arrows do not hold".into())) }
}

/// The part that a file below kernel/src belongs to: its folder, or its own name.
fn part_of(file: &Path) -> String {
    let first = file.iter().next().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
    first.trim_end_matches(".rs").to_string()
}

fn group_of(part: &str) -> Option<usize> {
    GROUPS.iter().position(|group| group.contains(&part))
}

fn allowed(file: &str, from: &str, to: &str) -> bool {
    if from == to || READERS.iter().any(|r| file.starts_with(r)) {
        return true;
    }
    if ARROWS.iter().any(|(part, targets)| *part == from && targets.contains(&to)) {
        return true;
    }
    match (group_of(from), group_of(to)) {
        (Some(left), Some(right)) => left < right || (left == right && OPEN_GROUPS.contains(&left)),
        // A name that is no part (a macro, a constant of the crate root) is no arrow.
        (_, None) => !ARROWS.iter().any(|(part, _)| *part == to),
        (None, Some(_)) => false,
    }
}

/// Every part named by a `crate::` path in the text, with its line number. Comments are left out.
fn uses(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|l| l.split("//").next().unwrap_or_default().to_string() + "\n").collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = code[at..].find("crate::") {
        let start = at + step + "crate::".len();
        let line = code[..start].matches('\n').count() + 1;
        let rest = &code[start..];
        match rest.strip_prefix('{') {
            None => found.push((line, identifier(rest))),
            Some(list) => found.extend(heads(list).into_iter().map(|name| (line, name))),
        }
        at = start;
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The first names of the items of a braced `use` list, whose opening brace is already taken.
fn heads(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut item_start = 0;
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(list[item_start..i].trim_start()));
                if c == '}' {
                    break;
                }
                item_start = i + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found() {
        let text = "use crate::mm::frame;\n// crate::fs\nuse crate::{\n    sched::{run, queue},\n    time,\n};\nlet x = crate::arch::f();\n";
        let names: Vec<(usize, String)> = uses(text);
        let expected = [(1, "mm"), (3, "sched"), (3, "time"), (7, "arch")];
        assert_eq!(names, expected.map(|(l, n)| (l, n.to_string())));
    }

    #[test]
    fn arrows_of_the_design() {
        for (from, to, is) in [
            ("main", "fs", true),
            ("syscall", "process", true),
            ("process", "sched", true),
            ("sched", "time", true),
            ("sched", "arch", true),
            ("mm", "smp", true),
            ("smp", "mm", false),
            ("time", "sched", false),
            ("arch", "percpu", false),
            ("arch", "sched", false),
            ("percpu", "arch", true),
            ("process", "syscall", false),
            ("entry", "process", true),
            ("entry", "fs", false),
            ("sched", "entry", false),
            ("panic", "arch", true),
            ("panic", "mm", false),
        ] {
            assert_eq!(allowed("x.rs", from, to), is, "{from} -> {to}");
        }
        assert!(allowed("fs/proc.rs", "fs", "syscall"));
        assert!(!allowed("fs/ram.rs", "fs", "syscall"));
    }
}
