//! Checks of the entry text: what may be patched there, what is locked, what is called.

use super::image::{Function, Image};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kcore::context_tracking as word;

/// Entry paths that may arrive at any instruction.
const PARANOID: &[&str] = &[
    "kernel::entry::nmi::nmi_entry",
    "kernel::entry::nmi::debug_entry",
    "kernel::entry::nmi::double_fault_entry",
    "kernel::entry::nmi::machine_check_entry",
];

/// What entry text may call: (caller, callee). Everything else is a violation.
const CALLS: &[(&str, &str)] = &[
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::syscall::syscall_entry", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::syscall::full_frame_call", "kernel::syscall::frame_call::full_frame_dispatch"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::exit_work::run"),
    ("kernel::entry::exit_work::full_exit_to_user", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::irq::from_kernel"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::user_enter_slow"),
    ("kernel::entry::irq::irq_common", "kernel::entry::tracking::idle_exit_slow"),
    ("kernel::entry::exception::exception_common", "kernel::entry::exception::from_user"),
    ("kernel::entry::exception::exception_common", "kernel::entry::exception::from_kernel"),
    ("kernel::entry::exception::exception_common", "kernel::entry::tracking::user_exit_slow"),
    ("kernel::entry::nmi::nmi_entry", "kernel::entry::nmi::handle"),
    ("kernel::entry::nmi::debug_entry", "kernel::entry::debug::from_user"),
    ("kernel::entry::nmi::debug_entry", "kernel::entry::debug::from_kernel"),
    ("kernel::entry::nmi::double_fault_entry", "kernel::entry::nmi::double_fault"),
    ("kernel::entry::nmi::machine_check_entry", "kernel::entry::nmi::machine_check"),
];

fn entry_functions<'i>(image: &'i Image) -> impl Iterator<Item = &'i Function> {
    let range = image.entry_text();
    image.functions.iter().filter(move |f| range.contains(&f.start))
}

fn tracking_key(image: &Image) -> Option<u64> {
    image.symbol("TRACKING")
}

/// Sites of other keys are patched while CPUs run: none may lie in entry text.
pub fn only_tracking_sites(image: &Image) -> Vec<String> {
    let (range, key) = (image.entry_text(), tracking_key(image));
    let table = image.jump_table();
    if key.is_none() || !table.iter().any(|e| range.contains(&e.code)) {
        return vec!["no tracking site was found in entry text".into()];
    }
    let foreign = table.iter().filter(|e| range.contains(&e.code) && Some(e.key) != key);
    foreign.map(|e| format!("site {:#x} of key {:#x}", e.code, e.key)).collect()
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
    let nops = path.iter().filter(|i| i.code() == Code::Nop_rm32 && i.len() == 5).count();
    let mut bad = Vec::new();
    if nops != 1 {
        bad.push(format!("{nops} five-byte NOPs instead of 1"));
    }
    for i in path {
        if i.has_lock_prefix() || i.mnemonic() == Mnemonic::Xchg {
            bad.push(format!("{:#x}: locked instruction", i.ip()));
        }
        if i.memory_displacement64() == key && key != 0 {
            bad.push(format!("{:#x}: touches the key", i.ip()));
        }
        let conditional = i.flow_control() == FlowControl::ConditionalBranch;
        if conditional && i.mnemonic() != Mnemonic::Jae {
            bad.push(format!("{:#x}: a conditional branch beside the range check of the number", i.ip()));
        }
    }
    bad
}

/// Every locked instruction of entry text is `mov ecx, delta; lock xadd word, rcx; and ecx, LOW_MASK; cmp ecx, expected`.
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
            let which = found.and_then(|(d, m, e)| legal.iter().position(|&l| l == (d, e) && m == word::LOW_MASK));
            match which {
                Some(w) if i.mnemonic() == Mnemonic::Xadd => seen[w] += 1,
                _ => bad.push(format!("{:#x} in {}: not one of kcore's transitions", i.ip(), f.name)),
            }
        }
    }
    // SYSCALL, interrupt, exception; SYSRET, interrupt, full frame; idle.
    if seen != [3, 3, 1] {
        bad.push(format!("user_exit {}, user_enter {}, idle_exit {} instead of 3, 3, 1", seen[0], seen[1], seen[2]));
    }
    bad
}

/// Calls out of entry text, and their place.
pub fn calls(image: &Image) -> Vec<String> {
    let mut bad = Vec::new();
    let table = image.jump_table();
    for f in entry_functions(image) {
        let exit_site = table.iter().map(|e| e.code).filter(|c| (f.start..f.end).contains(c)).min();
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
