//! rcu: how many grace periods there were and how long they took, sleepable readers, deferred frees; from /sys/kernel/quiesce/rcu.

use crate::duration::human;
use crate::entry::{Args, Failure, Outcome};
use crate::fields::Fields;
use crate::{kernel_file, output};

/// `rcu`: a histogram for each kind of grace period.
pub fn main(args: &Args) -> Outcome {
    if let Some(word) = args.rest().first() {
        return Err(Failure::usage(format!("takes no argument, got {word:?}")));
    }
    let text = kernel_file::read_quiesce("rcu")?;
    output::write_out(histograms(&text).map_err(|error| Failure::new(format!("rcu: {error}")))?.as_bytes());
    Ok(0)
}

fn histograms(text: &str) -> Result<String, String> {
    let mut out = String::new();
    for line in text.lines() {
        let fields = Fields::new(line);
        if let Ok(domain) = fields.need_text("srcu") {
            let (count, readers) = (fields.need("grace_periods")?, fields.need("readers")?);
            out.push_str(&format!("srcu {domain}: {count} grace periods, {readers} readers now\n"));
            continue;
        }
        if line.starts_with("deferred_free ") {
            out.push_str(&format!(
                "deferred free: {} given ({} KiB), {} freed, {} waiting, {} pages of notes, {} times short of memory\n",
                fields.need("given")?,
                fields.need("given_bytes")? >> 10,
                fields.need("freed")?,
                fields.need("waiting")?,
                fields.need("batches")?,
                fields.need("reclaims")?
            ));
            continue;
        }
        let (kind, count) = (fields.need_text("kind")?, fields.need("grace_periods")?);
        out.push_str(&format!("{kind}: {count} grace periods"));
        if let Some(mean) = fields.need("total_ns")?.checked_div(count) {
            let (shortest, longest) = (fields.need("shortest_ns")?, fields.need("longest_ns")?);
            let driver = fields.need("driver_ticks")? / count;
            out.push_str(&format!(
                ", mean {}, shortest {}, longest {}, {driver} ticks of the driving CPU each, {} stalled",
                human(mean),
                human(shortest),
                human(longest),
                fields.need("stalls")?
            ));
        }
        out.push('\n');
        let classes = line.split_ascii_whitespace().filter_map(|word| {
            let (below, count) = word.strip_prefix("below_")?.split_once('=')?;
            Some((below.parse::<u64>().ok()?, count.parse::<u64>().ok()?))
        });
        for (below, number) in classes {
            let bar = "#".repeat((number * 40).div_ceil(count.max(1)) as usize);
            out.push_str(&format!("  < {:>8} {number:>8} {bar}\n", human(below)));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_classes() {
        let text = "kind=normal grace_periods=4 total_ns=4000 shortest_ns=500 longest_ns=2000 driver_ticks=800 \
            driver_least_ticks=100 stalls=0 below_1024=1 below_2048=3\n\
            kind=expedited grace_periods=0 total_ns=0 shortest_ns=0 longest_ns=0 driver_ticks=0 driver_least_ticks=0 stalls=0\n";
        let got = histograms(text).unwrap();
        assert!(got.contains("200 ticks of the driving CPU each") && got.lines().count() == 4, "{got}");
        assert!(got.ends_with("expedited: 0 grace periods\n"), "{got}");
        assert!(histograms("kind=x\n").unwrap_err().contains("grace_periods"));
        let text = "srcu=mounts grace_periods=7 readers=1\n\
            deferred_free given=9 given_bytes=10240 freed=8 waiting=1 batches=2 reclaims=3 waited=0\n";
        let expected = "srcu mounts: 7 grace periods, 1 readers now\n\
            deferred free: 9 given (10 KiB), 8 freed, 1 waiting, 2 pages of notes, 3 times short of memory\n";
        assert_eq!(histograms(text).unwrap(), expected);
    }
}
