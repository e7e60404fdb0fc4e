//! /sys/devices/system/cpu. Source of the names: Linux Documentation/ABI/testing/sysfs-devices-system-cpu.

use crate::arch::cpu_features;
use crate::errno::Errno;
use crate::fs::generated::{Item, Leaf, Numbered};
use crate::isolation::housekeeping;
use crate::percpu;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use kcore::cpu_set::CpuSet;
use kcore::vulnerability::ALL;

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::File("online", |_, out| list(&percpu::online(), out)),
    Item::File("offline", |_, out| list(&all().difference(&percpu::online()), out)),
    Item::File("possible", |_, out| list(&all(), out)),
    Item::File("present", |_, out| list(&all(), out)),
    Item::File("isolated", |_, out| list(&housekeeping::isolcpus(), out)),
    Item::File("nohz_full", |_, out| list(&housekeeping::nohz_full(), out)),
    Item::File("kernel_max", |_, out| line(kcore::cpu_set::MAX_CPUS - 1, out)),
    Item::Dir("vulnerabilities", VULNERABILITIES),
    Item::Numbered(Numbered {
        prefix: "cpu",
        exists: |_, cpu| cpu < percpu::nr_cpus(),
        all: |_| (0..percpu::nr_cpus()).collect::<Vec<u32>>(),
        argument: |_, cpu| cpu as u64,
        leaf: Leaf::Dir(&[Item::File("online", |cpu, out| line(percpu::is_online(cpu as u32) as u32, out))]),
    }),
];

/// One file for each of `vulnerability::ALL`.
static VULNERABILITIES: &[Item] = &{
    macro_rules! files {
        ($($index:literal)*) => { [$(Item::File(ALL[$index].name, |_, out| vulnerability::<$index>(out))),*] };
    }
    files!(0 1 2 3 4 5 6 7 8 9 10 11 12 13)
};
const _: () = assert!(ALL.len() == VULNERABILITIES.len());

fn vulnerability<const INDEX: usize>(out: &mut String) -> Result<(), Errno> {
    line(ALL[INDEX].state(cpu_features::vendor(), cpu_features::architecture_capabilities()), out)
}

fn all() -> CpuSet {
    CpuSet::full(percpu::nr_cpus())
}

fn list(set: &CpuSet, out: &mut String) -> Result<(), Errno> {
    line(set, out)
}

fn line(value: impl core::fmt::Display, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "{value}");
    Ok(())
}
