//! One interruption of an isolated CPU, as a record of eight words: what, by whom, how long.
//!
//! Called by the entry code of isolated CPUs (encode into their trace ring) and by the reader of the log
//! (decode). Invariant: decoding what was encoded gives the same value; words that no encoder wrote are refused.
//!
//! ```text
//! word 0 start_tsc        3 sender_task 31..0, sender_cpu 63..32
//!      1 end_tsc          4-5 sender_comm, byte 0 lowest
//!      2 cpu 31..0, cause 39..32, vector 47..40, flags 55..48 (bit 0: a sender is given), 63..56 its IPI's cause + 1, or 0
//!      6 site             7 total
//! ```

/// Number of words of a record.
pub const WORDS: usize = 8;

use crate::ipi_ledger::IpiCause;

const FLAG_SENDER: u64 = 1;

/// What interrupted the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The local APIC timer.
    Timer,
    /// A request to schedule.
    Reschedule,
    /// A function call from another CPU.
    CallFunction,
    /// A TLB flush that could not wait.
    TlbFlush,
    /// RCU wanted a quiescent state.
    Rcu,
    /// The machine stops.
    Stop,
    /// A non-maskable interrupt.
    Nmi,
    /// The serial line.
    Serial,
    /// A request to serialise that could not wait.
    SyncCore,
    /// An APIC error.
    ApicError,
    /// Another device.
    Device,
    /// A spurious interrupt.
    Spurious,
    /// An exception.
    Exception {
        /// Its vector.
        vector: u8,
    },
}

impl Cause {
    /// All causes but exceptions, by code.
    pub const INTERRUPTS: [Cause; 12] = [
        Cause::Timer,
        Cause::Reschedule,
        Cause::CallFunction,
        Cause::TlbFlush,
        Cause::Rcu,
        Cause::Stop,
        Cause::Nmi,
        Cause::Serial,
        Cause::SyncCore,
        Cause::ApicError,
        Cause::Device,
        Cause::Spurious,
    ];

    /// Its number; all exceptions share one.
    #[inline]
    pub const fn code(self) -> u8 {
        match self {
            Cause::Timer => 0,
            Cause::Reschedule => 1,
            Cause::CallFunction => 2,
            Cause::TlbFlush => 3,
            Cause::Rcu => 4,
            Cause::Stop => 5,
            Cause::Nmi => 6,
            Cause::Serial => 7,
            Cause::SyncCore => 8,
            Cause::ApicError => 9,
            Cause::Device => 10,
            Cause::Spurious => 11,
            Cause::Exception { .. } => 12,
        }
    }

    /// The cause with this code; `vector` counts for exceptions only.
    pub const fn from_code(code: u8, vector: u8) -> Option<Cause> {
        if (code as usize) < Self::INTERRUPTS.len() {
            Some(Self::INTERRUPTS[code as usize])
        } else if code == 12 {
            Some(Cause::Exception { vector })
        } else {
            None
        }
    }

    /// The interrupt cause with this code; no exceptions.
    pub const fn from_u8(code: u8) -> Option<Cause> {
        if (code as usize) < Self::INTERRUPTS.len() { Some(Self::INTERRUPTS[code as usize]) } else { None }
    }

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Timer => "timer",
            Cause::Reschedule => "reschedule",
            Cause::CallFunction => "call_function",
            Cause::TlbFlush => "tlb_flush",
            Cause::Rcu => "rcu",
            Cause::Stop => "stop",
            Cause::Nmi => "nmi",
            Cause::Serial => "serial",
            Cause::SyncCore => "sync_core",
            Cause::ApicError => "apic_error",
            Cause::Device => "device",
            Cause::Spurious => "spurious",
            Cause::Exception { .. } => "exception",
        }
    }
}

/// One interruption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption {
    /// TSC at entry.
    pub start_tsc: u64,
    /// TSC at the way out.
    pub end_tsc: u64,
    /// The CPU that was interrupted.
    pub cpu: u32,
    /// By what.
    pub cause: Cause,
    /// The CPU that sent it, if one did. Without it the other sender fields mean nothing.
    pub sender_cpu: Option<u32>,
    /// The task that ran there.
    pub sender_task: u32,
    /// Its name, zero-padded.
    pub sender_comm: [u8; 16],
    /// What it was sent for, by the name that the ledger of IPIs has for it; of what a sender sent.
    pub ipi: Option<IpiCause>,
    /// Address of the `&'static Location` that sent it, or 0.
    pub site: u64,
    /// Interruptions of this CPU since it was isolated, this one included.
    pub total: u64,
}

/// Why words are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// No cause has this code.
    UnknownCause(u8),
    /// Flags that no encoder sets.
    UnknownFlags(u16),
}

impl Interruption {
    /// The record.
    #[inline]
    pub fn encode(&self) -> [u64; WORDS] {
        let vector = match self.cause {
            Cause::Exception { vector } => vector,
            _ => 0,
        };
        let ipi = self.ipi.map_or(0, |ipi| ipi.code() as u64 + 1);
        let flags = if self.sender_cpu.is_some() { FLAG_SENDER | ipi << 8 } else { 0 };
        let comm = u128::from_le_bytes(self.sender_comm);
        [
            self.start_tsc,
            self.end_tsc,
            self.cpu as u64 | (self.cause.code() as u64) << 32 | (vector as u64) << 40 | flags << 48,
            self.sender_task as u64 | (self.sender_cpu.unwrap_or(0) as u64) << 32,
            comm as u64,
            (comm >> 64) as u64,
            self.site,
            self.total,
        ]
    }

    /// The interruption of a record.
    pub fn decode(words: &[u64; WORDS]) -> Result<Interruption, DecodeError> {
        let (code, vector, flags) = ((words[2] >> 32) as u8, (words[2] >> 40) as u8, (words[2] >> 48) as u16);
        let cause = Cause::from_code(code, vector).ok_or(DecodeError::UnknownCause(code))?;
        let (given, ipi) = (flags as u8 as u64 == FLAG_SENDER, (flags >> 8) as u8);
        let ipi = ipi.checked_sub(1).map(|code| IpiCause::from_code(code).filter(|_| given));
        if flags as u8 as u64 & !FLAG_SENDER != 0 || ipi == Some(None) {
            return Err(DecodeError::UnknownFlags(flags));
        }
        Ok(Interruption {
            start_tsc: words[0],
            end_tsc: words[1],
            cpu: words[2] as u32,
            cause,
            sender_cpu: if given { Some((words[3] >> 32) as u32) } else { None },
            ipi: ipi.flatten(),
            sender_task: words[3] as u32,
            sender_comm: (words[4] as u128 | (words[5] as u128) << 64).to_le_bytes(),
            site: words[6],
            total: words[7],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_code_and_name() {
        let all: Vec<_> = Cause::INTERRUPTS.into_iter().chain([Cause::Exception { vector: 14 }]).collect();
        for (code, cause) in all.iter().enumerate() {
            assert_eq!(cause.code() as usize, code);
            assert_eq!(Cause::from_code(code as u8, 14), Some(*cause));
            assert_eq!(all.iter().filter(|other| other.name() == cause.name()).count(), 1);
        }
        assert_eq!((Cause::from_code(13, 0), Cause::from_u8(12)), (None, None));
    }
}
