//! bench: what the kernel says of itself, and the state of memory at the start.

use super::{Bench, metric, skip};
use crate::instruction::rdtsc;
use crate::kernel_file;
use crate::linux;
use crate::output::write_out;

/// /proc as process 1 of a kernel that does not have it mounted; refusals are left alone.
pub fn provide_proc() {
    provide(c"proc", c"/proc");
}

/// The other file systems, likewise. After the memory figures, which they would change.
pub fn provide_rest() {
    provide(c"sysfs", c"/sys");
    provide(c"tmpfs", c"/tmp");
}

fn provide(kind: &std::ffi::CStr, target: &std::ffi::CStr) {
    let path = target.to_string_lossy();
    let filled = std::fs::read_dir(&*path).is_ok_and(|mut entries| entries.next().is_some());
    if !filled {
        let _ = std::fs::create_dir(&*path);
        let _ = linux::mount(kind, target);
    }
}

/// Counter and clock at the program's start.
pub fn boot(bench: &Bench, boot_ticks: u64) {
    let _ = bench;
    metric("boot.tsc_at_init", boot_ticks, "ticks");
    let (now, now_ns) = (rdtsc(), linux::monotonic_ns());
    if now_ns != 0 {
        metric("boot.kernel_clock_at_init", now_ns.saturating_sub(now - boot_ticks), "ns");
    }
}

/// /proc/meminfo as it is at the start.
pub fn memory(_: &Bench) {
    const KEYS: [&str; 8] =
        ["MemTotal", "MemFree", "MemAvailable", "Slab", "Percpu", "KernelStack", "PageTables", "Cached"];
    let Ok(text) = kernel_file::read("/proc/meminfo") else { return skip("mem", i64::from(libc::ENOENT)) };
    let value = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        rest.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    for key in KEYS {
        metric(&format!("mem.{key}"), value(key), "kB");
    }
    metric("mem.used_at_init", value("MemTotal").saturating_sub(value("MemFree")), "kB");
}

/// `info` lines with one-line files of the kernel, and its entry symbols when asked for.
pub fn about(bench: &Bench) {
    const FILES: [&str; 8] = [
        "/proc/version",
        "/proc/cmdline",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        "/sys/devices/system/cpu/nohz_full",
        "/sys/devices/system/cpu/isolated",
        "/sys/devices/system/cpu/online",
        "/sys/devices/system/cpu/vulnerabilities/meltdown",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    for path in FILES {
        if let Ok(text) = kernel_file::read(path)
            && !text.trim().is_empty()
        {
            let line: String = text.trim_end().chars().take(300).collect();
            write_out(format!("info {} {line}\n", path.rsplit('/').next().unwrap_or(path)).as_bytes());
        }
    }
    if bench.number("syms", 0).is_ok_and(|wanted| wanted != 0)
        && let Ok(text) = kernel_file::read("/proc/kallsyms")
    {
        let entry = |name: &str| {
            name.starts_with("asm_")
                || name.starts_with("entry_SYSCALL")
                || ["ret_from_fork", "irq_entries_start"].contains(&name)
        };
        let is_entry = |line: &&str| line.split_ascii_whitespace().nth(2).is_some_and(entry);
        text.lines().filter(is_entry).for_each(|line| write_out(format!("sym {line}\n").as_bytes()));
    }
}
