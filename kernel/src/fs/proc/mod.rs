//! /proc: processes and the machine as Linux shows them. Reads everyone's state, changes nobody's.
//!
//! Source of the formats: proc(5) and Linux fs/proc/.

mod machine;
mod memory;
mod oom;
mod process;
mod statistics;

use super::generated::{Item, Leaf, Numbered, new_root};
use super::inode::{Inode, device_number};
use super::{current, mount};
use crate::errno::Errno;
use crate::process::random;
use crate::time::watchdog;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;

static ROOT: &[Item] = &[
    Item::Link("self", |_| Ok(alloc::format!("{}", current::pid()).into_bytes())),
    Item::Link("thread-self", |_| {
        let (pid, tid) = (current::pid(), crate::sched::current().tid());
        Ok(alloc::format!("{pid}/task/{tid}").into_bytes())
    }),
    Item::File("cmdline", machine::cmdline),
    Item::Control("sysrq-trigger", machine::sysrq_trigger),
    Item::File("cpuinfo", machine::cpuinfo),
    Item::File("filesystems", |_, out| {
        mount::TYPES.iter().for_each(|t| out.push_str(&alloc::format!("nodev\t{t}\n")));
        Ok(())
    }),
    Item::File("interrupts", statistics::interrupts),
    Item::Special("kmsg", super::kmsg::open),
    Item::File("loadavg", statistics::loadavg),
    Item::File("meminfo", machine::meminfo),
    Item::File("vmstat", machine::vmstat),
    Item::Link("mounts", |_| Ok(b"self/mounts".to_vec())),
    Item::File("stat", statistics::stat),
    Item::Dir(
        "sys",
        &[
            Item::Dir(
                "kernel",
                &[
                    Item::File("hostname", |_, out| line("quiesce", out)),
                    Item::File("ostype", |_, out| line("Linux", out)),
                    Item::File("osrelease", |_, out| line(crate::syscall::system::RELEASE, out)),
                    Item::File("pid_max", |_, out| line(crate::sched::task::PID_MAX, out)),
                    Item::Setting(
                        "watchdog_thresh",
                        |_, out| line(watchdog::threshold_s(), out),
                        machine::set_watchdog_thresh,
                    ),
                    Item::Setting(
                        "randomize_va_space",
                        |_, out| line(if random::is_layout_random() { 2 } else { 0 }, out),
                        machine::set_randomize_va_space,
                    ),
                    Item::File("threads-max", |_, out| line(crate::sched::task::PID_MAX, out)),
                ],
            ),
            Item::Dir("vm", &[Item::File("overcommit_memory", |_, out| line(1, out))]),
        ],
    ),
    Item::File("uptime", statistics::uptime),
    Item::File("version", machine::version),
    Item::Numbered(Numbered {
        prefix: "",
        exists: process::exists,
        all: process::all,
        argument: |_, pid| pid as u64,
        leaf: Leaf::Dir(process::ITEMS),
    }),
];

fn line(value: impl core::fmt::Display, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "{value}");
    Ok(())
}

/// A root of it.
pub fn root_inode() -> Arc<Inode> {
    new_root(device_number::PROC, ROOT)
}
