//! free: memory, from /proc/meminfo.

use crate::entry::{Args, Failure, Outcome};
use crate::{kernel_file, output};

/// `free`: total, used, free and available memory in kB.
pub fn main(args: &Args) -> Outcome {
    if let Some(word) = args.rest().first() {
        return Err(Failure::usage(format!("takes no argument, got {word:?}")));
    }
    let text = kernel_file::read("/proc/meminfo")?;
    output::write_out(table(&text).map_err(|error| Failure::new(format!("/proc/meminfo: {error}")))?.as_bytes());
    Ok(0)
}

fn table(text: &str) -> Result<String, String> {
    let number = |key: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(key)?.strip_prefix(':')?.trim().trim_end_matches(" kB").parse::<u64>().ok()
        })
    };
    let total = number("MemTotal").ok_or("no MemTotal")?;
    let free = number("MemFree").ok_or("no MemFree")?;
    let available = number("MemAvailable").unwrap_or(free);
    let mut out = format!("{:>17} {:>11} {:>11} {:>11}\n", "total", "used", "free", "available");
    out.push_str(&format!("Mem:  {total:11} {:11} {free:11} {available:11} kB\n", total.saturating_sub(free)));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_is_what_is_not_free() {
        let got = table("MemTotal:      1000 kB\nMemFree:        400 kB\n").unwrap();
        let numbers: Vec<_> = got.lines().nth(1).unwrap().split_whitespace().skip(1).collect();
        assert_eq!(numbers, ["1000", "600", "400", "400", "kB"]);
        assert_eq!(table("MemFree: 1 kB\n"), Err("no MemTotal".to_string()));
    }
}
