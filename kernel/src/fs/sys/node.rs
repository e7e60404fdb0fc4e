//! /sys/devices/system/node: one node, which has all CPUs and all memory. Source of the names: Linux Documentation/ABI/stable/sysfs-devices-node.

use crate::errno::Errno;
use crate::fs::generated::Item;
use crate::mm::frame;
use crate::percpu;
use alloc::string::String;
use core::fmt::Write;

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::File("online", zero),
    Item::File("possible", zero),
    Item::File("has_cpu", zero),
    Item::File("has_memory", zero),
    Item::Dir(
        "node0",
        &[
            Item::File("cpulist", |_, out| line(percpu::online(), out)),
            Item::File("cpumap", |_, out| line(percpu::online().mask(percpu::nr_cpus()), out)),
            Item::File("distance", |_, out| line(10, out)),
            Item::File("meminfo", |_, out| {
                let kib = |bytes: u64| bytes / 1024;
                let (all, free) = (kib(frame::ram_bytes()), kib(frame::free_bytes()));
                for (name, value) in [("MemTotal", all), ("MemFree", free), ("MemUsed", all.saturating_sub(free))] {
                    let _ = writeln!(out, "Node 0 {name}:{value:>15} kB");
                }
                Ok(())
            }),
        ],
    ),
];

fn zero(_: u64, out: &mut String) -> Result<(), Errno> {
    line(0, out)
}

fn line(value: impl core::fmt::Display, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "{value}");
    Ok(())
}
