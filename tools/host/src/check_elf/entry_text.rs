//! Checks of the entry text: what may be patched there, what is locked, what is called.

use super::image::{Function, Image};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kcore::context_tracking as word;

/// Entry paths that may arrive at any instruction.
const PARANOID: &[&str] = super::paranoid::ENTRIES;

/// What entry text may call: (caller, callee). Everything else is a violation.
const CALLS: &[(&str, &str)] = &[
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::trace_crossing::syscall_entry"),
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::trace_crossing::syscall_exit"),
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::trace_crossing::syscall_exit_to_work"),
    ("kernel::entry::syscall::full_frame_call", "kernel::syscall::frame_call::full_frame_dispatch"),
    ("kernel::entry::signal_return::signal_return_call", "kernel::syscall::frame_call::signal_return"),
    ("kernel::entry::signal_return::signal_return_call", "kernel::syscall::frame_call::frame_is_gone"),
    ("kernel::entry::signal_return::signal_return_call", "kernel::mm::user_context::load_registers"),
    ("kernel::entry::traced_syscall::traced_syscall_entry", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::traced_syscall::traced_syscall_entry", "kernel::entry::trace_crossing::syscall_entry"),
    ("kernel::entry::traced_syscall::traced_syscall_entry", "kernel::syscall::traced_call::run"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::exit_work::run"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::trace_crossing::user_enter"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::trace_crossing::user_enter_by_call"),
    ("kernel::entry::irq::irq_common", "kernel::entry::irq::from_kernel"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::idle_exit_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::trace_crossing::user_enter_by_irq"),
    ("kernel::entry::exception::exception_common", "kernel::entry::exception::from_user"),
    ("kernel::entry::exception::exception_common", "kernel::entry::exception::from_kernel"),
    ("kernel::entry::exception::exception_common", "kernel::entry::exception::bad_iret"),
    ("kernel::entry::exception::exception_common", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::breakpoint::breakpoint_entry", "kernel::entry::breakpoint::from_user"),
    ("kernel::entry::breakpoint::breakpoint_entry", "kernel::entry::breakpoint::from_kernel"),
    ("kernel::entry::nmi::nmi_entry", "kernel::entry::nmi::handle"),
    ("kernel::entry::nmi::debug_entry", "kernel::entry::debug::from_user"),
    ("kernel::entry::nmi::debug_entry", "kernel::entry::debug::from_kernel"),
    ("kernel::entry::nmi::double_fault_entry", "kernel::entry::nmi::double_fault"),
    ("kernel::entry::nmi::machine_check_entry", "kernel::entry::machine_check::from_user"),
    ("kernel::entry::nmi::machine_check_entry", "kernel::entry::machine_check::from_kernel"),
];

fn entry_functions<'i>(image: &'i Image) -> impl Iterator<Item = &'i Function> {
    let range = image.entry_text();
    image.functions.iter().filter(move |f| range.contains(&f.start))
}

fn tracking_key(image: &Image) -> Option<u64> {
    image.symbol("TRACKING")
}

/// Keys of trace points that entry text may have beside the tracking key: like that one they are switched at boot only.
const TRACE_KEYS: &[&str] = &["TRACE_SYSCALLS", "TRACE_CONTEXT"];

/// Sites of other keys may be patched while CPUs run: none may lie in entry text. And no trace point comes before user_exit.
pub fn boot_key_sites_only(image: &Image) -> Vec<String> {
    let key = tracking_key(image);
    let traces: Vec<_> = TRACE_KEYS.iter().filter_map(|name| image.symbol(name)).collect();
    let table = image.jump_table();
    let mut bad = Vec::new();
    if key.is_none() || traces.len() != TRACE_KEYS.len() {
        bad.push("the tracking key or a key of trace points was not found".into());
    }
    let mut tracking = 0;
    for f in entry_functions(image) {
        let sites = || table.iter().filter(|e| (f.start..f.end).contains(&e.code));
        let user_exit = sites().filter(|e| Some(e.key) == key).map(|e| e.code).min();
        tracking += usize::from(user_exit.is_some());
        for site in sites().filter(|e| Some(e.key) != key) {
            if !traces.contains(&site.key) {
                bad.push(format!("site {:#x} of key {:#x} in {}", site.code, site.key, f.name));
            }
            // The way out with a full frame begins behind user_exit.
            if user_exit.is_none_or(|at| site.code < at) && !f.name.ends_with("full_exit_to_user") {
                bad.push(format!("{:#x} in {}: a trace point before user_exit", site.code, f.name));
            }
        }
    }
    if tracking == 0 {
        bad.push("no tracking site was found in entry text".into());
    }
    bad
}

/// These paths run even while a key is being switched.
pub fn paranoid_paths_have_no_site(image: &Image) -> Vec<String> {
    let mut bad = Vec::new();
    for name in PARANOID {
        let Some(f) = image.function(name) else {
            bad.push(format!("function {name} is missing"));
            continue;
        };
        let sites = image.jump_table().into_iter().filter(|e| (f.start..f.end).contains(&e.code));
        bad.extend(sites.map(|e| format!("site {:#x} in {name}", e.code)));
    }
    bad
}

/// The straight line from SYSCALL to the call through the table.
pub fn off_path(image: &Image) -> Vec<String> {
    let Some(f) = image.function("kernel::entry::syscall::syscall_entry") else {
        return vec!["syscall_entry is missing".into()];
    };
    let key = tracking_key(image).unwrap_or(0);
    let code = image.instructions(f.start..f.end);
    let Some(dispatch) = code.iter().position(|i| i.flow_control() == FlowControl::IndirectCall) else {
        return vec!["no dispatch through the table".into()];
    };
    let path = &code[..dispatch];
    let nops: Vec<u64> = path.iter().filter(|i| i.code() == Code::Nop_rm32 && i.len() == 5).map(|i| i.ip()).collect();
    let site_key = |ip: &u64| image.jump_table().iter().find(|e| e.code == *ip).map(|e| e.key);
    let keys: Vec<Option<u64>> = nops.iter().map(site_key).collect();
    let trace = image.symbol("TRACE_SYSCALLS");
    let mut bad = Vec::new();
    if keys != [Some(key), trace] {
        bad.push(format!("five-byte NOPs at {nops:x?} instead of the tracking site, then the trace point"));
    }
    let key_range = [Some(key), trace].into_iter().flatten();
    for i in path {
        if key_range.clone().any(|k| k != 0 && i.memory_displacement64() == k) {
            bad.push(format!("{:#x}: touches a key", i.ip()));
        }
        if i.has_lock_prefix() || i.mnemonic() == Mnemonic::Xchg {
            bad.push(format!("{:#x}: locked instruction", i.ip()));
        }
        let conditional = i.flow_control() == FlowControl::ConditionalBranch;
        if conditional && i.mnemonic() != Mnemonic::Jae {
            bad.push(format!("{:#x}: a conditional branch beside the range check of the number", i.ip()));
        }
    }
    bad
}

/// Every locked instruction of entry text is the second of the same five: `mov ecx, delta; lock xadd word, rcx; and ecx, LOW_MASK;
/// cmp ecx, expected; jne slow` (`je` on, from idle). So user_exit and leaving idle by an interrupt cost the same, one locked instruction among them.
pub fn transitions(image: &Image) -> Vec<String> {
    let legal = [
        (word::USER_EXIT_DELTA, word::USER_EXPECTED),
        (word::USER_ENTER_DELTA, word::KERNEL_EXPECTED),
        (word::IDLE_EXIT_DELTA, word::IDLE_EXPECTED),
    ];
    let mut bad = Vec::new();
    let mut seen = [0usize; 3];
    for f in entry_functions(image) {
        let code = image.instructions(f.start..f.end);
        for (at, i) in code.iter().enumerate().filter(|(_, i)| i.has_lock_prefix()) {
            let immediate = |i: &Instruction, m: Mnemonic| {
                let is = i.mnemonic() == m && i.op0_register() == Register::ECX && i.op_count() == 2;
                (is && i.op1_kind() != OpKind::Register).then(|| i.immediate(1) & 0xffff_ffff)
            };
            let around = at.checked_sub(1).and_then(|p| code.get(p)).zip(code.get(at + 1)).zip(code.get(at + 2));
            let found = around.and_then(|((before, mask), compare)| {
                Some((
                    immediate(before, Mnemonic::Mov)?,
                    immediate(mask, Mnemonic::And)?,
                    immediate(compare, Mnemonic::Cmp)?,
                ))
            });
            let decides = |i: &Instruction| matches!(i.mnemonic(), Mnemonic::Je | Mnemonic::Jne);
            let decided = found.filter(|_| code.get(at + 3).is_some_and(decides));
            let which = decided.and_then(|(d, m, e)| legal.iter().position(|&l| l == (d, e) && m == word::LOW_MASK));
            match which {
                Some(w) if i.mnemonic() == Mnemonic::Xadd => seen[w] += 1,
                _ => bad.push(format!("{:#x} in {}: not one of kcore's transitions", i.ip(), f.name)),
            }
        }
    }
    // SYSCALL, that of traced tasks, interrupt, exception; SYSRET, interrupt, full frame, rt_sigreturn; idle.
    if seen != [4, 4, 1] {
        bad.push(format!("user_exit {}, user_enter {}, idle_exit {} instead of 4, 4, 1", seen[0], seen[1], seen[2]));
    }
    bad
}

/// Calls out of entry text, and their place.
pub fn calls(image: &Image) -> Vec<String> {
    let mut bad = Vec::new();
    let table = image.jump_table();
    for f in entry_functions(image) {
        let tracking = table.iter().filter(|e| Some(e.key) == tracking_key(image)).map(|e| e.code);
        let exit_site = tracking.filter(|c| (f.start..f.end).contains(c)).min();
        let has_user_exit = !f.name.ends_with("full_exit_to_user");
        for i in image.instructions(f.start..f.end) {
            if i.flow_control() != FlowControl::Call {
                continue;
            }
            let target = i.near_branch_target();
            let callee = image.functions.iter().find(|g| g.start == target).map_or("?", |g| &g.name);
            if !CALLS.iter().any(|&(from, to)| from == f.name && to == callee) {
                bad.push(format!("{:#x}: {} calls {callee}", i.ip(), f.name));
            }
            if has_user_exit && exit_site.is_some_and(|site| i.ip() < site) {
                bad.push(format!("{:#x}: {} calls {callee} before user_exit", i.ip(), f.name));
            }
        }
    }
    bad
}
