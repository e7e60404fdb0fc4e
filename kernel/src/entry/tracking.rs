//! The tracking sites of the entry paths, as assembly text: context tracking, RCU and time accounting in ONE
//! locked instruction each way.
//!
//! Each site is a 5-byte NOP that becomes a jump to its cold block when the tracking key is switched on. The block tests
//! this CPU's own `active` flag, moves the word by one `lock xadd`, compares the old value once (which covers both an
//! illegal transition and posted work), and books the time since the last transition.
//! Immediates come from `kcore::context_tracking`; the ELF check compares them.

/// A 5-byte NOP at local label `$site`, listed in the jump table to go to `$cold`.
/// Operands: `key` (sym of the tracking key).
macro_rules! tracking_site {
    ($site:literal, $cold:literal) => {
        concat!(
            $site,
            ": .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n",
            ".pushsection __jump_table, \"a\"\n",
            ".quad ",
            $site,
            "b, ",
            $cold,
            "f, {key}\n",
            ".popsection\n"
        )
    };
}

/// A 5-byte NOP at local label `$site` for a trace point's key (operand `trace_key`), which goes to `$cold` while that is on.
macro_rules! trace_site {
    ($site:literal, $cold:literal) => {
        concat!(
            $site,
            ": .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n",
            ".pushsection __jump_table, \"a\"\n",
            ".quad ",
            $site,
            "b, ",
            $cold,
            "f, {trace_key}\n",
            ".popsection\n"
        )
    };
}

/// The cold block of user_exit: clobbers rax, rcx, rdx and flags; interrupts off.
/// `$cold`: its label. `$back`: where to go on. `$slow`: where to go with ecx = what was unexpected.
/// `$restore`: instructions before going on.
macro_rules! tracking_user_exit {
    ($cold:literal, $back:literal, $slow:literal, $booked:literal, $restore:literal) => {
        concat!(
            $cold,
            ": cmp dword ptr gs:[{active}], 0\n",
            "je ",
            $back,
            "\n",
            "mov ecx, {exit_delta}\n",
            or_mutant!("lock xadd", "exit_by_xchg", "xchg"), // the one transition: context tracking and RCU
            " qword ptr gs:[{context}], rcx\n",
            "and ecx, {low_mask}\n",
            "cmp ecx, {user_expected}\n",
            "jne ",
            $slow,
            "\n",
            $booked,
            ": rdtsc\n", // time in user mode
            "shl rdx, 32\n",
            "or rax, rdx\n",
            "mov rcx, rax\n",
            "sub rcx, qword ptr gs:[{since}]\n",
            "add qword ptr gs:[{user_ticks}], rcx\n",
            "mov qword ptr gs:[{since}], rax\n",
            $restore,
            "jmp ",
            $back,
            "\n"
        )
    };
}

/// The cold block of user_enter: clobbers rax, rcx, rdx and flags; interrupts off; nothing of the kernel but
/// the per-CPU head is touched after it.
macro_rules! tracking_user_enter {
    ($cold:literal, $back:literal, $slow:literal, $save:literal, $restore:literal) => {
        concat!(
            $cold,
            ": cmp dword ptr gs:[{active}], 0\n",
            "je ",
            $back,
            "\n",
            $save,
            "rdtsc\n", // time in the kernel
            "shl rdx, 32\n",
            "or rax, rdx\n",
            "mov rcx, rax\n",
            "sub rcx, qword ptr gs:[{since}]\n",
            "add qword ptr gs:[{kernel_ticks}], rcx\n",
            "mov qword ptr gs:[{since}], rax\n",
            "mov ecx, {enter_delta}\n",
            or_mutant!("lock xadd", "enter_not_locked", "xadd"), // the one transition: context tracking and RCU
            " qword ptr gs:[{context}], rcx\n",
            "and ecx, {low_mask}\n",
            "cmp ecx, {kernel_expected}\n",
            "jne ",
            $slow,
            "\n",
            $restore,
            "jmp ",
            $back,
            "\n"
        )
    };
}

/// user_exit found something unexpected: posted work, or an illegal old state. Called from entry text with interrupts
/// off, after the transition, so kernel code may run.
pub extern "C" fn user_exit_slow() {
    crate::context_tracking::after_user_exit();
}

/// user_enter came from an illegal state: the word is repaired and the transition done again.
pub extern "C" fn user_enter_slow() {
    crate::context_tracking::repair_user_enter();
}

/// An interrupt found the CPU idle, and the word had something unexpected.
pub extern "C" fn idle_exit_slow() {
    crate::context_tracking::after_idle_exit();
}
