//! ps: the processes, from /proc.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file;
use crate::output::{Output, describe};

/// `ps`: number, parent, state, CPU, used time and name of every process. Arguments are ignored, as everything is shown anyway.
pub fn main(_: &Args) -> Outcome {
    let proc = format!("{}/proc", kernel_file::root());
    let entries = std::fs::read_dir(&proc).map_err(|error| Failure::new(format!("{proc}: {}", describe(&error))))?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut out = Output::new();
    out.line("  PID  PPID STATE CPU      TIME COMMAND");
    for pid in pids {
        // One that cannot be read has ended meanwhile.
        let Ok(stat) = kernel_file::read(&format!("/proc/{pid}/stat")) else { continue };
        if let Some(row) = row(&stat, &kernel_file::read(&format!("/proc/{pid}/cmdline")).unwrap_or_default()) {
            out.line(row);
        }
    }
    Ok(0)
}

/// The row of one process. Fields: man 5 proc, /proc/PID/stat (2 comm, 3 state, 4 ppid, 14 utime, 15 stime, 39 processor); times in 1/100 s.
fn row(stat: &str, cmdline: &str) -> Option<String> {
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let pid = stat[..open].trim();
    let comm = stat.get(open + 1..close)?;
    let fields: Vec<_> = stat[close + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let time = |number| field(number).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let used = time(14) + time(15);
    let words = cmdline.trim_end_matches('\0').replace('\0', " ");
    let command = if words.is_empty() { format!("[{comm}]") } else { words };
    let (state, parent, cpu) = (field(3)?, field(4)?, field(39).unwrap_or("-"));
    Some(format!("{pid:>5} {parent:>5} {state:5} {cpu:>3} {:>6}.{:02} {command}", used / 100, used % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_from_stat() {
        let mut fields = vec!["0"; 50];
        (fields[0], fields[1], fields[11], fields[12], fields[36]) = ("R", "1", "150", "75", "3");
        let stat = format!("12 (a) b) {}", fields.join(" "));
        let words = |text: &str| row(&stat, text).unwrap().split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(""), ["12", "1", "R", "3", "2.25", "[a)", "b]"]);
        assert_eq!(words("spin\0-x\0").last().unwrap(), "-x");
        assert_eq!(row("nonsense", ""), None);
    }
}
