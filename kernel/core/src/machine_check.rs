//! What a machine check means: the banks' words and who was interrupted, into what is to be done.
//!
//! Called by the kernel's #MC handler alone. It fails closed: what the manual does not call recoverable ends the kernel.
//! Source: SDM vol. 3B, "Machine-Check Architecture": "Interpreting Machine-Check Error Codes", "UCR Error Classification".

/// Bits of IA32_MCG_CAP.
pub mod cap {
    /// How many banks.
    pub const BANKS: u64 = 0xff;
    /// IA32_MCG_CTL is there.
    pub const CTL: u64 = 1 << 8;
    /// Software can recover: S and AR mean something.
    pub const RECOVERY: u64 = 1 << 24;
}

/// Bits of IA32_MCG_STATUS.
pub mod global {
    /// The interrupted program can go on at its RIP.
    pub const RIP_VALID: u64 = 1 << 0;
    /// The error has to do with the instruction at RIP.
    pub const ERROR_IP_VALID: u64 = 1 << 1;
    /// A machine check is being handled; a second one shuts the CPU down.
    pub const IN_PROGRESS: u64 = 1 << 2;
}

/// Bits of a bank's IA32_MCi_STATUS.
pub mod status {
    /// The words mean something.
    pub const VALID: u64 = 1 << 63;
    /// Another error was lost.
    pub const OVERFLOW: u64 = 1 << 62;
    /// Hardware has not corrected it.
    pub const UNCORRECTED: u64 = 1 << 61;
    /// It was to be reported by #MC.
    pub const ENABLED: u64 = 1 << 60;
    /// MISC means something.
    pub const MISC_VALID: u64 = 1 << 59;
    /// ADDR means something.
    pub const ADDRESS_VALID: u64 = 1 << 58;
    /// The CPU's state is corrupt.
    pub const CONTEXT_CORRUPT: u64 = 1 << 57;
    /// Signalled by #MC.
    pub const SIGNALLED: u64 = 1 << 56;
    /// Something must be done before the program goes on.
    pub const ACTION_REQUIRED: u64 = 1 << 55;
}

/// Banks that are looked at; hardware has up to 32.
pub const MOST_BANKS: usize = 32;

/// One bank's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bank {
    /// Its number.
    pub number: u32,
    /// IA32_MCi_STATUS.
    pub status: u64,
    /// IA32_MCi_ADDR; 0 where the status says that there is none.
    pub address: u64,
    /// IA32_MCi_MISC; 0 where the status says that there is none.
    pub misc: u64,
}

impl Bank {
    const fn has(&self, bits: u64) -> bool {
        self.status & bits == bits
    }

    /// Whether somebody has to do something before going on: the CPU that is concerned.
    pub const fn needs_action(&self) -> bool {
        self.has(status::SIGNALLED | status::ACTION_REQUIRED)
    }

    /// A physical address in the memory that is lost, and the power of two of how much; `None` if the bank does not say it so. Of more than a page:
    /// an address in the page that was used, as the bank has it.
    pub const fn memory(&self) -> Option<(u64, u32)> {
        const PHYSICAL: u64 = 2;
        const PAGE_ORDER: u32 = 12;
        if !self.has(status::ADDRESS_VALID | status::MISC_VALID) || self.misc >> 6 & 7 != PHYSICAL {
            return None;
        }
        let order = (self.misc & 0x3f) as u32;
        let known = if order < PAGE_ORDER { order } else { PAGE_ORDER };
        Some((self.address >> known << known, order))
    }
}

/// Whom it interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// A program.
    User,
    /// The kernel, idle too.
    Kernel,
    /// The first or last instructions of an NMI: an IRET would let the next one in onto the frame that is still needed.
    NmiEntry,
}

/// Why the kernel cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fatal {
    /// PCC.
    ContextCorrupt,
    /// Uncorrected, and this CPU does not tell what can be recovered; or bits that no CPU may set together.
    Uncorrected,
    /// Action is required for two errors, and one was lost.
    Overflow,
    /// Action is required, and it is the kernel that needs it.
    InKernel,
    /// No error of the running program, and it cannot go on.
    NotRestartable,
    /// In an NMI's entry.
    InNmi,
    /// It has to do with this CPU's instruction, and no bank says what it is.
    Unexplained,
}

impl Fatal {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Fatal::ContextCorrupt => "the processor's context is corrupt",
            Fatal::Uncorrected => "an uncorrected error without recovery",
            Fatal::Overflow => "an error that needs action was overwritten",
            Fatal::InKernel => "the kernel's own access failed",
            Fatal::NotRestartable => "what was interrupted cannot be restarted",
            Fatal::InNmi => "it came in the entry of an NMI",
            Fatal::Unexplained => "unexplained: no bank says what happened",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Note it and go on.
    GoOn,
    /// The running program used what is lost; `bank` says what. Not `restartable`: it may not even see a signal's handler.
    Program {
        /// The bank that tells.
        bank: Bank,
        /// Its registers are right.
        restartable: bool,
    },
    /// The end.
    End(Fatal),
}

/// Whether the error has to do with the CPU whose IA32_MCG_STATUS this is. Machine checks go to all CPUs; one that can go on and is not told to
/// have to do with it has not.
pub const fn is_concerned(mcg_status: u64) -> bool {
    mcg_status & global::RIP_VALID == 0 || mcg_status & global::ERROR_IP_VALID != 0
}

/// Decide. `recovery`: `cap::RECOVERY`. `banks`: all banks of the CPU, in any order; those that are not valid do not count.
pub fn decide(mcg_status: u64, recovery: bool, interrupted: Interrupted, banks: &[Bank]) -> Verdict {
    use Verdict::End;
    use status::*;
    let restartable = mcg_status & global::RIP_VALID != 0;
    let concerned = is_concerned(mcg_status);
    let mut program = None;
    let mut explained = false;
    // An error that was not to be reported by #MC is for whoever polls the banks.
    for bank in banks.iter().filter(|bank| bank.has(VALID | ENABLED)) {
        explained = true;
        if bank.has(CONTEXT_CORRUPT) {
            return End(Fatal::ContextCorrupt);
        }
        if !bank.has(UNCORRECTED) {
            continue;
        }
        match (recovery, bank.has(SIGNALLED), bank.has(ACTION_REQUIRED)) {
            // Nothing has used the data yet ("no action", "action optional").
            (true, _, false) => {}
            (false, ..) | (true, false, true) => return End(Fatal::Uncorrected),
            (true, true, true) if !concerned => {}
            (true, true, true) if bank.has(OVERFLOW) => return End(Fatal::Overflow),
            (true, true, true) if interrupted != Interrupted::User => return End(Fatal::InKernel),
            (true, true, true) => program = program.or(Some(Verdict::Program { bank: *bank, restartable })),
        }
    }
    match program {
        Some(verdict) => verdict,
        None if !restartable => End(Fatal::NotRestartable),
        None if concerned && !explained => End(Fatal::Unexplained),
        None if interrupted == Interrupted::NmiEntry => End(Fatal::InNmi),
        None => Verdict::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::status::*;
    use super::*;
    use Interrupted::*;

    const AFFECTED: u64 = global::RIP_VALID | global::ERROR_IP_VALID | global::IN_PROGRESS;
    const OTHER: u64 = global::RIP_VALID | global::IN_PROGRESS;
    const UCNA: u64 = VALID | UNCORRECTED | ENABLED;
    const SRAO: u64 = UCNA | SIGNALLED;
    const SRAR: u64 = SRAO | ACTION_REQUIRED;

    fn bank(status: u64) -> Bank {
        Bank { number: 3, status, address: 0x1234_5678, misc: 0x8c }
    }

    fn one(mcg_status: u64, interrupted: Interrupted, status: u64) -> Verdict {
        decide(mcg_status, true, interrupted, &[Bank::default(), bank(status)])
    }

    fn killed(restartable: bool) -> Verdict {
        Verdict::Program { bank: bank(SRAR), restartable }
    }

    #[test]
    fn what_a_program_used_is_the_programs() {
        assert_eq!(one(AFFECTED, User, SRAR), killed(true));
        // An instruction that could not be fetched: the registers may be wrong.
        assert_eq!(one(global::IN_PROGRESS, User, SRAR), killed(false));
        assert_eq!(one(AFFECTED, Kernel, SRAR), Verdict::End(Fatal::InKernel));
        assert_eq!(one(AFFECTED, NmiEntry, SRAR), Verdict::End(Fatal::InKernel));
        assert_eq!(one(AFFECTED, User, SRAR | OVERFLOW), Verdict::End(Fatal::Overflow));
    }

    #[test]
    fn others_that_hear_of_it_go_on() {
        for interrupted in [User, Kernel] {
            assert_eq!(one(OTHER, interrupted, SRAR), Verdict::GoOn);
            assert_eq!(decide(OTHER, true, interrupted, &[]), Verdict::GoOn);
        }
        assert_eq!(decide(OTHER, true, NmiEntry, &[]), Verdict::End(Fatal::InNmi));
        assert_eq!(decide(global::IN_PROGRESS, true, User, &[]), Verdict::End(Fatal::NotRestartable));
    }

    #[test]
    fn what_nobody_has_used_yet_may_stay() {
        for status in [UCNA, SRAO, SRAO | OVERFLOW, VALID | ENABLED, VALID | ENABLED | OVERFLOW] {
            for interrupted in [User, Kernel] {
                assert_eq!(one(AFFECTED, interrupted, status), Verdict::GoOn, "{status:#x}");
                assert_eq!(one(0, interrupted, status), Verdict::End(Fatal::NotRestartable), "{status:#x}");
            }
        }
    }

    #[test]
    fn a_corrupt_context_is_the_end_whoever_ran_and_whatever_else_there_is() {
        for interrupted in [User, Kernel, NmiEntry] {
            for status in [SRAR, SRAO, UCNA, VALID | ENABLED] {
                let corrupt = bank(status | CONTEXT_CORRUPT);
                for banks in [[bank(SRAR), corrupt], [corrupt, bank(SRAR)]] {
                    let verdict = decide(AFFECTED, true, interrupted, &banks);
                    // In the kernel the first bank alone is the end already.
                    assert!(matches!(verdict, Verdict::End(Fatal::ContextCorrupt | Fatal::InKernel)), "{verdict:?}");
                }
            }
        }
    }

    #[test]
    fn without_recovery_nothing_uncorrected_is_survived() {
        for status in [UCNA, SRAO, SRAR] {
            assert_eq!(decide(AFFECTED, false, User, &[bank(status)]), Verdict::End(Fatal::Uncorrected));
        }
        assert_eq!(decide(AFFECTED, false, User, &[bank(VALID | ENABLED)]), Verdict::GoOn);
        assert_eq!(one(AFFECTED, User, UCNA | ACTION_REQUIRED), Verdict::End(Fatal::Uncorrected), "AR without S");
    }

    #[test]
    fn what_is_not_valid_or_not_enabled_does_not_count() {
        for status in [SRAR, SRAR | CONTEXT_CORRUPT] {
            for missing in [VALID, ENABLED] {
                assert_eq!(one(OTHER, Kernel, status & !missing), Verdict::GoOn);
                assert_eq!(one(AFFECTED, Kernel, status & !missing), Verdict::End(Fatal::Unexplained));
            }
        }
    }

    #[test]
    fn what_concerns_this_cpu_and_is_not_explained_is_the_end() {
        for interrupted in [User, Kernel, NmiEntry] {
            assert_eq!(decide(AFFECTED, true, interrupted, &[]), Verdict::End(Fatal::Unexplained));
            assert_eq!(decide(AFFECTED, false, interrupted, &[Bank::default()]), Verdict::End(Fatal::Unexplained));
        }
        // Another bank explains it.
        assert_eq!(decide(AFFECTED, true, Kernel, &[bank(0), bank(SRAO)]), Verdict::GoOn);
    }

    #[test]
    fn who_has_to_act() {
        assert!(
            is_concerned(AFFECTED) && is_concerned(0) && is_concerned(global::ERROR_IP_VALID) && !is_concerned(OTHER)
        );
        assert!(
            bank(SRAR).needs_action() && !bank(SRAO).needs_action() && !bank(UCNA | ACTION_REQUIRED).needs_action()
        );
    }

    #[test]
    fn the_memory_that_is_lost() {
        let memory = |status, misc| Bank { number: 0, status: VALID | status, address: 0x1234_5678, misc }.memory();
        assert_eq!(memory(ADDRESS_VALID | MISC_VALID, 0x8c), Some((0x1234_5000, 12)));
        assert_eq!(memory(ADDRESS_VALID | MISC_VALID, 0x86), Some((0x1234_5640, 6)));
        assert_eq!(memory(ADDRESS_VALID | MISC_VALID, 0xbf), Some((0x1234_5000, 63)), "the page in the region");
        assert_eq!(memory(ADDRESS_VALID, 0x8c), None);
        assert_eq!(memory(MISC_VALID, 0x8c), None);
        assert_eq!(memory(ADDRESS_VALID | MISC_VALID, 0x4c), None, "a linear address");
    }
}
