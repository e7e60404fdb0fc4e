//! /sys: the CPUs as Linux shows them, and /sys/kernel/quiesce, which is ours. Reads everyone's state, changes nobody's.

mod absent_msr;
mod cpu;
mod debug;
mod ipi;
mod isolate;
mod lease;
mod log;
mod memory;
mod nmi_burst;
mod node;
mod protection;
mod quiesce;
mod rcu_fanout;
mod torture;
mod trace_file;
mod tracing;
mod user_access;
mod watch;

use super::generated::{Item, new_root};
use super::inode::{Inode, device_number};
use alloc::sync::Arc;

static ROOT: &[Item] = &[
    Item::Dir("devices", &[Item::Dir("system", &[Item::Dir("cpu", cpu::ITEMS), Item::Dir("node", node::ITEMS)])]),
    Item::Dir("kernel", &[Item::Dir("quiesce", quiesce::ITEMS), Item::Dir("tracing", tracing::ITEMS)]),
];

/// A root of /sys/kernel/tracing, for a tracefs that is mounted elsewhere.
pub fn tracing_root_inode() -> Arc<Inode> {
    new_root(device_number::SYS, tracing::ITEMS)
}

/// A root of it.
pub fn root_inode() -> Arc<Inode> {
    new_root(device_number::SYS, ROOT)
}
