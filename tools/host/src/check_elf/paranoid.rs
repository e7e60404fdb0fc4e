//! Checks of the handlers that may run at any instruction: what they execute before RCU watches.

use super::image::Image;
use iced_x86::{FlowControl, Mnemonic};
use std::collections::BTreeSet;

/// The entries. Each is followed through what it calls, on every way, up to the first locked instruction: nmi_enter or user_exit.
pub const ENTRIES: &[&str] = &[
    "kernel::entry::nmi::nmi_entry",
    "kernel::entry::nmi::debug_entry",
    "kernel::entry::nmi::double_fault_entry",
    "kernel::entry::nmi::machine_check_entry",
    "kernel::entry::breakpoint::breakpoint_entry",
];
/// Where the kernel ends: what is said and done from there on is not this check's.
const ENDS: &[&str] = &["kernel::panic::", "core::panicking::"];
/// Functions that make the transition where it is needed: what comes behind a call of theirs may be traced.
const TRANSITIONS: &[&str] = &["kernel::context_tracking::user_exit_if_tracked", "kernel::context_tracking::nmi_enter"];
/// The way out: the transition has been made, or was not needed.
const WAY_OUT: &str = "kernel::entry::exit_work::full_exit_to_user";

/// Walks from each entry, and tells every key site that it meets.
pub fn no_site_before_transition(image: &Image) -> Vec<String> {
    let mut bad = Vec::new();
    for name in ENTRIES {
        let Some(entry) = image.function(name) else {
            bad.push(format!("function {name} is missing"));
            continue;
        };
        let walk = walk(image, entry.start);
        bad.extend(walk.sites.iter().map(|site| format!("{name} reaches the site {site:#x}")));
        bad.extend(walk.unknown.iter().map(|at| format!("{name}: {at:#x} goes nobody knows where")));
    }
    bad
}

#[derive(Default)]
struct Walk {
    sites: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
}

fn walk(image: &Image, start: u64) -> Walk {
    let sites: BTreeSet<u64> = image.jump_table().iter().map(|e| e.code).collect();
    let mut found = Walk::default();
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        let Some(f) = image.function_at(at).filter(|_| seen.insert(at)) else { continue };
        if ENDS.iter().any(|end| f.name.starts_with(end)) || f.name == WAY_OUT {
            continue;
        }
        if sites.contains(&at) {
            found.sites.insert(at);
        }
        let Some(i) = image.instructions(at..f.end).into_iter().next() else { continue };
        // The transition: what comes behind it may be traced.
        if i.has_lock_prefix() && i.mnemonic() == Mnemonic::Xadd {
            continue;
        }
        match i.flow_control() {
            FlowControl::Next | FlowControl::Interrupt | FlowControl::XbeginXabortXend => open.push(i.next_ip()),
            FlowControl::UnconditionalBranch => open.push(i.near_branch_target()),
            FlowControl::ConditionalBranch => open.extend([i.near_branch_target(), i.next_ip()]),
            // A call comes back, unless it ends the kernel; then what stands behind it is a harmless surplus.
            FlowControl::Call => {
                let target = i.near_branch_target();
                open.push(target);
                let callee = image.function_at(target).map_or("", |g| g.name.as_str());
                if !TRANSITIONS.iter().any(|t| callee.starts_with(t)) {
                    open.push(i.next_ip());
                }
            }
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                found.unknown.insert(at);
            }
        }
    }
    found
}
