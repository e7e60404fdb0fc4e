//! `host check-arrows`: which part of the kernel may use which, as `ARCHITECTURE.md` draws it. Looks at every
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
    &["context_tracking", "static_key", "percpu", "spin_lock"],
    &["arch", "limine"],
];
/// Groups whose parts may use each other without more ado.
const OPEN_GROUPS: &[usize] = &[2, 4, 5];
/// Arrows inside the middle group, and those of the parts that stand outside the groups.
const ARROWS: &[(&str, &[&str])] = &[
    ("isolation", &["sched", "mm", "time", "rcu", "smp", "trace", "console"]),
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
            "isolation",
            "syscall",
            "context_tracking",
            "static_key",
            "text_patch",
            "percpu",
            "arch",
        ],
    ),
    ("panic", &["arch"]),
];
/// Files that may read everyone: they show the kernel's state.
const READERS: &[&str] = &["main.rs", "fs/proc", "fs/sys"];
/// A further arrow, with its reason.
struct Exception {
    /// File or folder below kernel/src; empty: every file.
    from: &'static str,
    /// The part that it uses, or one module of it.
    to: &'static str,
    reason: &'static str,
}

const fn exception(from: &'static str, to: &'static str, reason: &'static str) -> Exception {
    Exception { from, to, reason }
}

const FIELD: &str = "the one per-CPU struct holds each part's own state as a field";

/// Further arrows. One that no file needs any more fails the check too.
const EXCEPTIONS: &[Exception] = &[
    exception("", "panic", "anyone may let the kernel die, or ask whether it is dying"),
    exception("", "entry::frame", "the saved registers are data that every crossing shares"),
    exception(
        "",
        "entry::exit_work",
        "a bit in the CPU's head asks for the exit loop; setting it is not calling entry",
    ),
    exception(
        "",
        "isolation::housekeeping",
        "the lists of CPUs, which everyone reads and `isolation::live` alone changes",
    ),
    exception("", "isolation::lease", "whoever would enter a leased CPU asks; whoever enters it says so"),
    exception("percpu.rs", "rcu", FIELD),
    exception("percpu.rs", "sched", FIELD),
    exception("percpu.rs", "smp", FIELD),
    exception("percpu.rs", "time", FIELD),
    exception("percpu.rs", "trace", FIELD),
    exception("panic.rs", "console", "the epitaph is printed by a path that takes no lock"),
    exception("panic.rs", "trace", "the epitaph lists this CPU's last records, read without a lock"),
    exception("panic.rs", "percpu", "the epitaph names this CPU's word and task"),
    exception("panic.rs", "sched", "the epitaph names this CPU's word and task"),
    exception("context_tracking.rs", "time", "the deferred re-check of the tick is run with the other posted work"),
    exception("static_key.rs", "text_patch", "a key flips by patching text"),
    exception("text_patch.rs", "mm", "text is patched through a temporary mapping"),
    exception("errno.rs", "mm::user_copy", "a fault in a user copy is EFAULT"),
    exception("errno.rs", "sched::wait_queue", "a wait that a signal ended is a restart code"),
    exception("sched/futex.rs", "process", "a futex key names the calling thread's address space"),
    exception("sched/priority_futex.rs", "process", "a futex word names its holder by the thread id that programs see"),
    exception("sched", "smp", "a remote CPU is kicked after its queue has changed"),
    exception("sched", "mm", "a task owns its kernel stack, and a switch loads its address space"),
    exception("smp/bring_up.rs", "entry", "each CPU installs its own vectors"),
    exception("smp/bring_up.rs", "mm", "each CPU gets its stacks"),
    exception("smp/bring_up.rs", "sched", "each CPU ends its start in its idle task"),
    exception("mm/frame.rs", "process", "the reserve is for kernel threads and the first process"),
    exception("mm/failure.rs", "process", "whose allocation it is: a program's, and which"),
    exception("mm/failure.rs", "sched", "whose allocation it is: the running task counts its own"),
    exception("smp/bring_up.rs", "time", "each CPU starts its own timer"),
    exception("smp/ipi.rs", "sched", "the record of an IPI names the sending task"),
    exception("smp/interrupt.rs", "time", "the table of vectors leads here; time and tty own the work"),
    exception("smp/interrupt.rs", "tty", "the table of vectors leads here; time and tty own the work"),
    exception("time", "sched", "timers wake tasks, and the tick asks what could run"),
    exception("time/watchdog.rs", "rcu", "a quiescent state is a sign of life"),
    exception("time/watchdog.rs", "smp", "the stack of a CPU that hangs is taken by an NMI"),
    exception("trace/rings.rs", "rcu", "a ring that is replaced is freed a grace period after its last use"),
    exception("trace", "sched", "the log's readers sleep, and its drain is a kernel thread"),
    exception("trace", "time", "the drain sleeps between rounds"),
    exception("rcu", "sched", "grace periods are driven by a kernel thread, and waiters sleep"),
    exception("rcu", "time", "the grace-period thread sleeps between looks"),
    exception("rcu/deferred_free.rs", "mm", "notes lie in page frames, and tasks that are freed leave stacks behind"),
    exception("sched/switch.rs", "entry::traced_syscall", "a switch to a traced task gives the CPU its entry point"),
    exception("syscall", "entry", "the table's length is a constant of the entry code"),
];

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
        for (line, path) in uses(&text) {
            let to = path.split("::").next().unwrap_or_default();
            if allowed(&file.to_string_lossy(), &from, to) {
                continue;
            }
            let matches = |e: &Exception| file.starts_with(e.from) && (e.to == to || e.to == path);
            match EXCEPTIONS.iter().position(matches) {
                Some(i) => used_exceptions[i] = true,
                None => {
                    wrong.entry(format!("{from} -> {path}")).or_default().push(format!("{}:{line}", file.display()))
                }
            }
        }
    }
    for (arrow, places) in &wrong {
        println!("{arrow}: {}", places.join(" "));
    }
    let stale: Vec<_> = EXCEPTIONS.iter().zip(&used_exceptions).filter(|(_, used)| !**used).collect();
    for (e, _) in &stale {
        println!("exception is not needed any more: {} -> {} ({})", e.from, e.to, e.reason);
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

/// Every `crate::` path in the text with its line number, cut to its first two names (`entry::frame`), or to one where
/// the second is no module name or a braced list. Comments are left out.
fn uses(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|l| l.split("//").next().unwrap_or_default().to_string() + "\n").collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = code[at..].find("crate::") {
        let start = at + step + "crate::".len();
        let line = code[..start].matches('\n').count() + 1;
        let rest = &code[start..];
        match rest.strip_prefix('{') {
            None => found.push((line, two_names(rest))),
            Some(list) => found.extend(heads(list).into_iter().map(|name| (line, name))),
        }
        at = start;
    }
    found
}

fn two_names(text: &str) -> String {
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let first = name(text);
    let second = text[first.len()..].strip_prefix("::").map(name).unwrap_or_default();
    let is_module = second.starts_with(|c: char| c.is_ascii_lowercase());
    if is_module { format!("{first}::{second}") } else { first }
}

/// The paths of a braced `use` list, whose opening brace is already taken.
fn heads(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut item_start = 0;
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(two_names(list[item_start..i].trim_start()));
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
        let text = "use crate::mm::frame;\n// crate::fs\nuse crate::{\n    sched::{run, queue},\n    time,\n    smp::ipi::Kind,\n};\nlet x = crate::arch::f();\n";
        let names: Vec<(usize, String)> = uses(text);
        let expected = [(1, "mm::frame"), (3, "sched"), (3, "time"), (3, "smp::ipi"), (8, "arch::f")];
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
