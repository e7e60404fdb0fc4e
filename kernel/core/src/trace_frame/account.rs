//! Where every record went: received, lost in the kernel, lost on the line.
//!
//! Fed by whoever decodes a stream, with its frames in their order. Invariant: for each CPU, once the END frame has been
//! seen, received + lost on the line + lost in the kernel is what the CPU pushed (less what was still in its ring).

use super::{Frame, Item, Total};
use alloc::collections::BTreeMap;

/// One CPU's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuAccount {
    /// Arrived here.
    pub received: u64,
    /// Sent, as far as known from frames that arrived.
    pub delivered: u64,
    /// Lost in the kernel, as far as known from frames that arrived.
    pub lost_in_kernel: u64,
}

impl CpuAccount {
    /// Sent, and never arrived.
    pub const fn lost_on_line(&self) -> u64 {
        self.delivered.saturating_sub(self.received)
    }

    /// What the CPU pushed, as far as known.
    pub const fn pushed(&self) -> u64 {
        self.delivered.saturating_add(self.lost_in_kernel)
    }

    fn knows(&mut self, delivered: u64, lost: u64) {
        self.delivered = self.delivered.max(delivered);
        self.lost_in_kernel = self.lost_in_kernel.max(lost);
    }
}

/// The account of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    cpus: BTreeMap<u32, CpuAccount>,
    /// What earlier boots on the same line had, all CPUs together.
    pub earlier: CpuAccount,
    /// Frames that arrived whole, bad ones included.
    pub frames: u64,
    /// Frames whose numbers are missing.
    pub missing_frames: u64,
    /// Frames that arrived twice.
    pub repeated_frames: u64,
    /// Frames without meaning.
    pub bad_frames: u64,
    /// Frames with the wrong checksum.
    pub bad_crcs: u64,
    /// Bytes that belong to no frame.
    pub skipped_bytes: u64,
    /// How often the kernel was booted again.
    pub restarts: u64,
    /// The stream's end was seen.
    pub ended: bool,
}

impl Account {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one item in.
    pub fn add(&mut self, item: &Item) {
        match item {
            Item::Frame(frame) => {
                self.frames += 1;
                self.frame(frame);
            }
            Item::Skipped(bytes) => self.skipped_bytes += bytes,
            Item::BadCrc => self.bad_crcs += 1,
            Item::Missing(frames) => self.missing_frames += u64::from(*frames),
            Item::Repeated(_) => self.repeated_frames += 1,
            Item::Restart => self.restart(),
            Item::Bad(_) => {
                self.frames += 1;
                self.bad_frames += 1;
            }
        }
    }

    fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Records { before, records } => {
                let cpu = self.cpus.entry(before.cpu).or_default();
                let count = records.len() as u64;
                cpu.received += count;
                cpu.knows(before.delivered.saturating_add(count), before.lost);
            }
            Frame::End(totals) => {
                self.ended = true;
                for &Total { cpu, delivered, lost } in totals {
                    self.cpus.entry(cpu).or_default().knows(delivered, lost);
                }
            }
            _ => {}
        }
    }

    fn restart(&mut self) {
        self.restarts += 1;
        self.ended = false;
        let all = self.all();
        self.earlier = all;
        self.cpus.clear();
    }

    /// Each CPU that had records, of the last boot.
    pub fn cpus(&self) -> impl Iterator<Item = (u32, &CpuAccount)> {
        self.cpus.iter().map(|(&cpu, account)| (cpu, account))
    }

    /// All CPUs and boots together.
    pub fn all(&self) -> CpuAccount {
        self.cpus.values().fold(self.earlier, |sum, cpu| CpuAccount {
            received: sum.received + cpu.received,
            delivered: sum.delivered.saturating_add(cpu.delivered),
            lost_in_kernel: sum.lost_in_kernel.saturating_add(cpu.lost_in_kernel),
        })
    }

    /// Whether nothing was lost or bad anywhere and the end was seen.
    pub fn is_whole(&self) -> bool {
        let all = self.all();
        self.ended
            && all.lost_on_line() + all.lost_in_kernel == 0
            && [self.missing_frames, self.repeated_frames, self.bad_frames, self.bad_crcs, self.skipped_bytes] == [0; 5]
    }
}
