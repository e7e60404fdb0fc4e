//! ipi: who interrupted whom and why, from /sys/kernel/quiesce/ipi, the most frequent first.

use crate::duration::human;
use crate::entry::{Args, Failure, Outcome};
use crate::fields::Fields;
use crate::{cpu_list, kernel_file, output};

/// `ipi [CPU]`: all CPUs, or only what went to one.
pub fn main(args: &Args) -> Outcome {
    let target = match args.rest() {
        [] => None,
        [word] => Some(cpu_list::parse_cpu(word).map_err(Failure::usage)?),
        _ => return Err(Failure::usage("usage: ipi [CPU]")),
    };
    let text = kernel_file::read_quiesce("ipi")?;
    output::write_out(table(&text, target).map_err(|error| Failure::new(format!("ipi: {error}")))?.as_bytes());
    Ok(0)
}

/// The file's text for people.
fn table(text: &str, target: Option<u32>) -> Result<String, String> {
    let mut lines = Vec::new();
    let (mut all_sent, mut all_avoided) = (0u64, 0u64);
    for line in text.lines().filter(|line| !line.starts_with("total ")) {
        let fields = Fields::new(line);
        let to = fields.number("to");
        if target.is_some() && to != target.map(u64::from) {
            continue;
        }
        let (sent, avoided): (u64, u64) = (fields.need("sent")?, fields.need("avoided")?);
        all_sent += sent;
        all_avoided += avoided;
        let to = to.map_or("?".to_string(), |cpu| cpu.to_string());
        let cost = match (fields.number("cost_ns"), fields.number("longest_ns")) {
            (Some(cost), Some(longest)) => format!("{} (longest {})", human(cost), human(longest)),
            _ => "-".to_string(),
        };
        let by = match (fields.text("site"), fields.text("comm"), fields.text("task")) {
            (Some(site), Some(comm), Some(task)) => format!("{site} in {comm}/{task}"),
            _ => "many sites".to_string(),
        };
        let cause = fields.need_text("cause")?;
        let from: u64 = fields.need("from")?;
        lines.push((sent + avoided, format!("{from:>4} {to:>4} {cause:<16} {sent:>8} {avoided:>8} {cost:<24} {by}\n")));
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.0));
    let mut out = format!(
        "{:>4} {:>4} {:<16} {:>8} {:>8} {:<24} {}\n",
        "from", "to", "cause", "sent", "avoided", "cost", "asked by (last)"
    );
    lines.iter().for_each(|line| out.push_str(&line.1));
    out.push_str(&format!("sent {all_sent}, avoided {all_avoided}\n"));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "from=0 to=1 cause=injected sent=1 avoided=0 seen=1 cost_ns=250 longest_ns=250 site=a.rs:1 task=7 comm=noise\n\
        from=0 to=2 cause=kernel_tlb_flush sent=0 avoided=40 site=b.rs:2 task=9 comm=rcu_gp\n\
        from=2 cause=signal sent=3 avoided=0\ntotal sent=4 avoided=40\n";

    #[test]
    fn the_most_frequent_comes_first() {
        let got = table(TEXT, None).unwrap();
        let words: Vec<Vec<&str>> = got.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["0", "2", "kernel_tlb_flush", "0", "40", "-", "b.rs:2", "in", "rcu_gp/9"]);
        assert_eq!(words[2][..5], ["2", "?", "signal", "3", "0"]);
        assert!(words[3].ends_with(&["a.rs:1", "in", "noise/7"]) && got.contains("250 ns (longest 250 ns)"));
        assert!(got.ends_with("sent 4, avoided 40\n"));
    }

    #[test]
    fn one_target_alone() {
        let got = table(TEXT, Some(1)).unwrap();
        assert!(got.lines().count() == 3 && got.ends_with("sent 1, avoided 0\n"), "{got}");
        assert!(table("from=1 cause=x\n", None).unwrap_err().contains("sent"));
    }
}
