//! A trace as one page: a time line for each CPU, drawn by the page itself; nothing is loaded from elsewhere. Pure.

use super::json::string;
use super::spans::Span;
use super::stream::{Trace, What};
use super::summary;
use kcore::trace_event::{Data, Group};

/// The page with `@DATA@` and `@SUMMARY@` in place of its content.
const PAGE: &str = include_str!("timeline.html");

/// Names of the rows of a CPU, from the top.
const ROWS: [&str; 4] = ["context", "task", "work", "events"];

/// The page.
pub fn write(trace: &Trace, spans: &[Span]) -> String {
    let mut data = String::from("{\"rows\": [");
    data.push_str(&ROWS.map(string).join(", "));
    data.push_str("], \"spans\": [");
    let mut first = true;
    let mut item = |text: String| {
        if !std::mem::take(&mut first) {
            data.push_str(",\n");
        }
        data.push_str(&text);
    };
    let end = trace
        .entries
        .iter()
        .rev()
        .find(|entry| entry.tsc != u64::MAX)
        .map_or(0, |entry| time(trace, entry.boot, entry.tsc));
    contexts(trace, end, &mut item);
    for span in spans {
        let row = match span.cause.as_str() {
            cause if cause.starts_with("irq ") || cause.starts_with("exception ") || cause == "nmi" => 2,
            cause if cause.starts_with("interruption ") || cause == "timer function" => 2,
            cause if cause.starts_with("ipi ") && !cause.ends_with(" way") => 2,
            _ => continue,
        };
        let (from, to) = (time(trace, span.boot, span.start_tsc), time(trace, span.boot, span.end_tsc));
        item(format!("[{},{row},{from},{to},{}]", span.cpu, string(&span.cause)));
    }
    data.push_str("], \"marks\": [");
    let mut first = true;
    for entry in &trace.entries {
        let (group, name) = match &entry.what {
            What::Record(record) => (record.data.event().group(), record.data.event().name()),
            What::Lost(..) => (Group::Rcu, "LOST"),
            What::Interruption(_) => continue,
        };
        // Begin and end of stays and handlers are drawn as spans.
        if matches!(group, Group::Irq | Group::Context) || entry.tsc == u64::MAX {
            continue;
        }
        if !std::mem::take(&mut first) {
            data.push_str(",\n");
        }
        let at = time(trace, entry.boot, entry.tsc);
        data.push_str(&format!("[{},{at},{},{}]", entry.cpu, string(name), string(&trace.line(entry))));
    }
    data.push_str("]}");
    let text = summary::table(trace, spans) + "\n" + &summary::account(trace);
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    // The data last: a name in it may look like a place to fill.
    PAGE.replace("@SUMMARY@", &escaped).replace("@DATA@", &data)
}

fn time(trace: &Trace, boot: usize, tsc: u64) -> u64 {
    trace.clock(boot).time_ns(tsc)
}

/// Stays in user mode, kernel and idle, and tasks: each from one record to the next.
fn contexts(trace: &Trace, end: u64, item: &mut impl FnMut(String)) {
    let mut open: std::collections::BTreeMap<(u32, usize), (u64, String)> = Default::default();
    for entry in &trace.entries {
        let at = || time(trace, entry.boot, entry.tsc);
        let (row, next) = match &entry.what {
            What::Record(record) => match record.data {
                Data::UserExit { .. } | Data::IdleExit { .. } => (0, Some("kernel".to_string())),
                Data::UserEnter { .. } => (0, Some("user".to_string())),
                Data::IdleEnter { .. } => (0, Some("idle".to_string())),
                Data::SchedSwitch { next, .. } => {
                    (1, Some(format!("{}/{}", super::stream::comm_text(&next.comm), next.id)))
                }
                _ => continue,
            },
            What::Lost(..) if entry.tsc != u64::MAX => (0, None),
            _ => continue,
        };
        let before = match next {
            Some(next) => open.insert((entry.cpu, row), (at(), next)),
            None => open.remove(&(entry.cpu, row)),
        };
        if let Some((from, name)) = before {
            item(format!("[{},{row},{from},{},{}]", entry.cpu, at(), string(&name)));
        }
    }
    for ((cpu, row), (from, name)) in open {
        item(format!("[{cpu},{row},{from},{},{}]", end.max(from), string(&name)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{spans, stream};
    use super::*;

    #[test]
    fn the_page_holds_the_trace_and_needs_nothing_else() {
        let trace = stream::decode(&stream::tests::small().concat());
        let page = write(&trace, &spans::spans(&trace));
        assert!(page.contains("[1,2,1000,1500,\"irq timer\"]"), "{page}");
        assert!(page.contains("[0,1100,\"ipi_send_cpu\","), "{page}");
        assert!(page.contains("9 pushed = 6 received"), "{page}");
        assert!(!page.contains("@DATA@") && !page.contains("@SUMMARY@"));
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http") && !outside.contains("src=") && !outside.contains("@import"));
    }
}
