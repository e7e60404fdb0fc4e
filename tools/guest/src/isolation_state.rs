//! /sys/kernel/quiesce/isolate: what each CPU is, what its last flip moved away, what is left that could interrupt it. Pure; called by
//! `isolate` and `torture`.

use crate::duration;
use crate::fields::Fields;

/// One CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IsolationState {
    /// CPU number.
    pub cpu: u32,
    /// Whether it is left alone.
    pub isolated: bool,
    /// Whether its user mode is tracked.
    pub tracked: bool,
    /// Whether a program has a lease on it.
    pub leased: bool,
    /// What its last flip moved away, a line each.
    pub moved: Vec<String>,
    /// What is left that could interrupt it, a line each.
    pub left: Vec<String>,
}

/// All CPUs of the file's text. The error says which line is wrong.
pub fn parse(text: &str) -> Result<Vec<IsolationState>, String> {
    let mut cpus: Vec<IsolationState> = Vec::new();
    // The first line is about all CPUs.
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let fields = Fields::new(line);
        let odd = || format!("line {line:?}");
        match line.split_ascii_whitespace().next() {
            Some("moved") => cpus.last_mut().ok_or_else(odd)?.moved.push(moved(&fields)?),
            Some("left") => cpus.last_mut().ok_or_else(odd)?.left.push(left(&fields)?),
            _ => {
                let flag = |key| fields.number(key) == Some(1);
                let cpu = u32::try_from(fields.need("cpu")?).map_err(|_| odd())?;
                let (isolated, tracked, leased) = (flag("isolated"), flag("tracked"), flag("leased"));
                cpus.push(IsolationState { cpu, isolated, tracked, leased, ..IsolationState::default() });
            }
        }
    }
    Ok(cpus)
}

fn task(fields: &Fields) -> Result<String, String> {
    Ok(format!("{}/{}", fields.need_text("comm")?, fields.need("task")?))
}

fn moved(fields: &Fields) -> Result<String, String> {
    Ok(match fields.need_text("what")? {
        "task" => format!("task {} to CPUs {}", task(fields)?, fields.need_text("to")?),
        "timer" => format!("timer of {}", task(fields)?),
        "irq" => {
            format!("interrupt {} ({}) to CPU {}", fields.need("irq")?, fields.need_text("name")?, fields.need("to")?)
        }
        other => other.to_string(),
    })
}

fn left(fields: &Fields) -> Result<String, String> {
    Ok(match fields.need_text("what")? {
        "task" if fields.text("state") == Some("R") => format!("task {}, which runs or waits to run", task(fields)?),
        "task" => format!("task {}, which sleeps", task(fields)?),
        "timer" => format!("timer of {}, due in {}", task(fields)?, duration::human(fields.need("in_ns")?)),
        "tick" => format!("tick, for {} (scope {})", fields.need_text("dep")?, fields.need_text("scope")?),
        "irq" => format!("interrupt {} ({})", fields.need("irq")?, fields.need_text("name")?),
        other => other.to_string(),
    })
}

impl IsolationState {
    /// How it is, as lines.
    pub fn now(&self) -> String {
        if !self.isolated {
            return format!("CPU {}: does housekeeping\n", self.cpu);
        }
        let leased = if self.leased { ", leased" } else { "" };
        format!("CPU {}: left alone{leased}\n{}", self.cpu, self.left_lines())
    }

    /// What its last flip did, as lines.
    pub fn after_flip(&self) -> String {
        let moved: String = self.moved.iter().map(|what| format!("  moved: {what}\n")).collect();
        if self.isolated {
            format!("CPU {}: left alone\n{moved}{}", self.cpu, self.left_lines())
        } else {
            format!("CPU {}: does housekeeping again\n{moved}", self.cpu)
        }
    }

    fn left_lines(&self) -> String {
        if self.left.is_empty() {
            return "  nothing is left that could interrupt it\n".into();
        }
        self.left.iter().map(|what| format!("  left: {what}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "tracking=on flips=3\ncpu=0 isolated=0 tracked=0 leased=0 changing=0\n\
        cpu=2 isolated=1 tracked=1 leased=0 changing=0\n\
        moved from=2 what=task task=7 comm=spin to=0-1,3\nmoved from=2 what=timer task=9 comm=sleep\n\
        moved from=2 what=irq irq=4 name=serial to=0\n\
        left on=2 what=task task=11 comm=spin state=R\nleft on=2 what=task task=12 comm=sleep state=S\n\
        left on=2 what=timer task=12 comm=sleep in_ns=20500000\nleft on=2 what=tick dep=sched scope=cpu\n\
        left on=2 what=irq irq=4 name=serial\n\
        cpu=3 isolated=1 tracked=1 leased=1 changing=0\n";

    #[test]
    fn what_moved_and_what_is_left() {
        let cpus = parse(TEXT).unwrap();
        assert_eq!(cpus.iter().map(|c| c.cpu).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(cpus[0].now(), "CPU 0: does housekeeping\n");
        assert_eq!(
            cpus[1].after_flip(),
            "CPU 2: left alone\n  moved: task spin/7 to CPUs 0-1,3\n  moved: timer of sleep/9\n  \
             moved: interrupt 4 (serial) to CPU 0\n  left: task spin/11, which runs or waits to run\n  \
             left: task sleep/12, which sleeps\n  left: timer of sleep/12, due in 20.5 ms\n  \
             left: tick, for sched (scope cpu)\n  left: interrupt 4 (serial)\n"
        );
        assert_eq!(cpus[2].now(), "CPU 3: left alone, leased\n  nothing is left that could interrupt it\n");
    }

    #[test]
    fn a_broken_line_is_named() {
        assert!(parse("tracking=on\nmoved from=2 what=task\n").unwrap_err().contains("moved"));
        assert!(parse("tracking=on\nhello\n").unwrap_err().contains("hello"));
        assert!(parse("x\ncpu=2\nleft on=2 what=timer task=1\n").unwrap_err().contains("comm="));
    }
}
