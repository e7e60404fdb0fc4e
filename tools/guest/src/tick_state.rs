//! /sys/kernel/quiesce/cpuN/why: whether a CPU's tick is on, who holds it, and the last changes. Pure; called by `why` and `noise`.

use crate::duration::{human, seconds};
use crate::fields::Fields;

/// The file's first line: `cpu=1 tick=off since_ns=… now_ns=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickState {
    /// Whether the tick is on.
    pub on: bool,
    /// Since when, in nanoseconds since boot.
    pub since_ns: u64,
    /// When the file was read, in nanoseconds since boot.
    pub now_ns: u64,
}

/// The state of the file's text. The error names what is missing.
pub fn parse(text: &str) -> Result<TickState, String> {
    let fields = Fields::new(text.lines().next().unwrap_or(""));
    Ok(TickState {
        on: fields.need_text("tick")? == "on",
        since_ns: fields.need("since_ns")?,
        now_ns: fields.need("now_ns")?,
    })
}

/// The file's text for people: the state, one line for each holder, then the changes, oldest first.
pub fn explain(text: &str) -> Result<String, String> {
    let state = parse(text)?;
    let ago = |ns: u64| human(state.now_ns.saturating_sub(ns));
    let mut out = String::new();
    let changes: Vec<_> = text.lines().skip(1).filter_map(|line| line.strip_prefix("change ")).collect();
    let mut holders = 0;
    for line in text.lines().skip(1).filter_map(|line| line.strip_prefix("held ")) {
        let fields = Fields::new(line);
        let since_ns = fields.number("since_ns").unwrap_or(state.since_ns);
        out.push_str(&format!(
            "{}, held by {}, scope {}, set by {}, since {} s ({} ago)\n",
            if state.on { "tick ON" } else { "tick OFF" },
            fields.need_text("dep")?,
            fields.text("scope").unwrap_or("?"),
            origin(&fields),
            seconds(since_ns),
            ago(since_ns),
        ));
        holders += 1;
    }
    if holders == 0 {
        let tick = if state.on { "tick ON, held by nobody," } else { "tick OFF" };
        let since = match (state.since_ns, changes.is_empty()) {
            (0, true) => "boot".to_string(),
            (since_ns, _) => format!("{} s", seconds(since_ns)),
        };
        out.push_str(&format!("{tick} since {since} ({} ago)\n", ago(state.since_ns)));
    }
    match changes.len() {
        0 => out.push_str("no change recorded\n"),
        1 => out.push_str("last change:\n"),
        count => out.push_str(&format!("last {count} changes, oldest first:\n")),
    }
    for line in changes {
        let fields = Fields::new(line);
        let dep = fields.text("dep").unwrap_or("none");
        let tick = if fields.need_text("tick")? == "on" { "ON " } else { "OFF" };
        out.push_str(&format!("  [{:>12}] {tick}", seconds(fields.need("at_ns")?)));
        if dep != "none" {
            out.push_str(&format!(" {dep}, scope {}", fields.text("scope").unwrap_or("?")));
        }
        if fields.text("site").is_some() {
            out.push_str(&format!("{} by {}", if dep == "none" { "" } else { "," }, origin(&fields)));
        }
        out.push('\n');
    }
    Ok(out)
}

/// `<site> in <task>`.
fn origin(fields: &Fields) -> String {
    let site = fields.text("site").unwrap_or("?");
    match (fields.text("comm"), fields.text("task")) {
        (Some(comm), Some(task)) => format!("{site} in {comm}/{task}"),
        (Some(task), None) | (None, Some(task)) => format!("{site} in {task}"),
        (None, None) => format!("{site} in no task"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_off_tick_is_told_with_its_changes() {
        let text = "cpu=1 tick=off since_ns=2500000000 now_ns=4500000000\n\
            change at_ns=1000000000 tick=on dep=sched scope=cpu site=kernel/src/sched/enqueue.rs:42 task=7 comm=spin\n\
            change at_ns=2500000000 tick=off dep=none scope=cpu site=kernel/src/sched/dequeue.rs:9 task=8 comm=sh\n";
        let want = "tick OFF since 2.500000 s (2.00 s ago)\nlast 2 changes, oldest first:\n\
            \x20 [    1.000000] ON  sched, scope cpu, by kernel/src/sched/enqueue.rs:42 in spin/7\n\
            \x20 [    2.500000] OFF by kernel/src/sched/dequeue.rs:9 in sh/8\n";
        assert_eq!(explain(text).unwrap(), want);
    }

    #[test]
    fn a_tick_that_never_was_on_is_off_since_boot() {
        let want = "tick OFF since boot (20 ns ago)\nno change recorded\n";
        assert_eq!(explain("cpu=1 tick=off since_ns=0 now_ns=20\n").unwrap(), want);
    }

    #[test]
    fn each_holder_of_the_tick_is_named() {
        let text = "cpu=1 tick=on since_ns=10 now_ns=20\n\
            held dep=sched scope=cpu site=kernel/src/sched/enqueue.rs:42 task=7 comm=spin since_ns=12\n\
            held dep=posix_timer scope=process site=kernel/src/time/timer.rs:1 since_ns=13\n";
        let got = explain(text).unwrap();
        let lines: Vec<_> = got.lines().collect();
        assert_eq!(
            lines[0],
            "tick ON, held by sched, scope cpu, set by kernel/src/sched/enqueue.rs:42 in spin/7, since 0.000000 s (8 ns ago)"
        );
        assert!(
            lines[1].starts_with(
                "tick ON, held by posix_timer, scope process, set by kernel/src/time/timer.rs:1 in no task"
            )
        );
        assert_eq!(lines[2], "no change recorded");
    }

    #[test]
    fn nonsense_is_named() {
        assert!(explain("").is_err());
        assert!(explain("cpu=1 tick=on since_ns=1 now_ns=2\nheld scope=cpu\n").unwrap_err().contains("dep="));
    }
}
