//! What is said at the end of a trace: figures per CPU and cause, and where every record went. Pure.

use super::spans::{Span, summaries};
use super::stream::Trace;

/// The table of durations; empty without any.
pub fn table(trace: &Trace, spans: &[Span]) -> String {
    let rows = summaries(trace, spans);
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["COUNT", "MIN ns", "AVG ns", "P99 ns", "MAX ns"];
    let mut out = format!("{:>3} {:32}", "CPU", "CAUSE");
    heads.iter().for_each(|head| out.push_str(&format!(" {head:>12}")));
    out.push('\n');
    for (cpu, cause, s) in rows {
        out.push_str(&format!("{cpu:>3} {cause:32}"));
        [s.count, s.min, s.avg, s.p99, s.max].iter().for_each(|figure| out.push_str(&format!(" {figure:>12}")));
        out.push('\n');
    }
    out
}

/// Where every record went, in one line for all and one for each CPU that lost some; then what is odd.
pub fn account(trace: &Trace) -> String {
    let (account, all) = (&trace.account, trace.account.all());
    let mut out = format!(
        "records: {} pushed = {} received + {} lost in the kernel + {} lost on the line; {} bytes skipped\n",
        all.pushed(),
        all.received,
        all.lost_in_kernel,
        all.lost_on_line(),
        account.skipped_bytes
    );
    for (cpu, one) in account.cpus().filter(|(_, one)| one.lost_in_kernel + one.lost_on_line() > 0) {
        let (in_kernel, on_line) = (one.lost_in_kernel, one.lost_on_line());
        out.push_str(&format!("  cpu {cpu}: {in_kernel} lost in the kernel, {on_line} on the line\n"));
    }
    let mut told = |count: u64, what: &str| {
        if count > 0 {
            out.push_str(&format!("  {count} {what}\n"));
        }
    };
    told(account.missing_frames, "frames missing");
    told(account.repeated_frames, "frames twice there");
    told(account.bad_crcs, "frames with a wrong checksum");
    told(account.bad_frames, "frames without meaning to this version");
    told(account.restarts, "further boots in the same file");
    told(trace.undecodable.len() as u64, "records without meaning to this version");
    if let Some((number, error)) = trace.undecodable.first() {
        out.push_str(&format!("  the first is record {number}: {error}\n"));
    }
    if !trace.has_clocks() {
        out.push_str("  no HELLO frame: a tick counts as a nanosecond\n");
    }
    if !account.ended {
        out.push_str("  no END frame: what was lost at the end is not known\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{spans, stream};
    use super::*;

    #[test]
    fn losses_are_told_by_place() {
        let mut frames = stream::tests::small();
        let whole = stream::decode(&frames.concat());
        let expected = "records: 9 pushed = 6 received + 3 lost in the kernel + 0 lost on the line; 0 bytes skipped\n  \
                        cpu 1: 3 lost in the kernel, 0 on the line\n";
        assert_eq!(account(&whole), expected);
        let table = table(&whole, &spans::spans(&whole));
        let row: Vec<_> = table.lines().find(|line| line.contains("irq timer")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["1", "irq", "timer", "1", "500", "500", "500", "500"]);
        frames[6][20] ^= 1;
        frames.truncate(8);
        let text = account(&stream::decode(&frames.concat()));
        assert!(
            text.starts_with("records: 9 pushed = 4 received + 3 lost in the kernel + 2 lost on the line;"),
            "{text}"
        );
        assert!(text.contains("  1 frames missing\n") && text.contains("1 frames with a wrong checksum\n"), "{text}");
        assert!(text.contains("no END frame"), "{text}");
    }
}
