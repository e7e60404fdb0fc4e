//! free: memory, from /proc/meminfo.

use crate::entry::{Args, Failure, Outcome};
use crate::{kernel_file, output};

/// `free`: total, used, free, cached and available memory in kB. Used is what is neither free nor the content of files.
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
    let cached = number("Buffers").unwrap_or(0) + number("Cached").unwrap_or(0);
    let available = number("MemAvailable").unwrap_or(free);
    let used = total.saturating_sub(free).saturating_sub(cached);
    let mut out = format!("{:>17} {:>11} {:>11} {:>11} {:>11}\n", "total", "used", "free", "buff/cache", "available");
    out.push_str(&format!("Mem:  {total:11} {used:11} {free:11} {cached:11} {available:11} kB\n"));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_is_what_is_neither_free_nor_cached() {
        let got = table("MemTotal:      1000 kB\nMemFree:        400 kB\nBuffers: 0 kB\nCached: 150 kB\n").unwrap();
        let numbers: Vec<_> = got.lines().nth(1).unwrap().split_whitespace().skip(1).collect();
        assert_eq!(numbers, ["1000", "450", "400", "150", "400", "kB"]);
        assert_eq!(table("MemFree: 1 kB\n"), Err("no MemTotal".to_string()));
    }
}
