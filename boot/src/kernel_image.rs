//! Loads the kernel's ELF segments into one block of memory and maps them with their rights.

use crate::fail;
use crate::paging::{NO_EXECUTE, PageTables, WRITABLE};
use crate::physical_memory::{Block, PhysicalMemory};
use crate::protocol::LOWEST_KERNEL_ADDRESS;
use kcore::boot_memory_map::{Kind, PAGE_SIZE};
use kcore::elf::{self, LoadPlan};

/// The loaded kernel.
pub struct KernelImage {
    plan: LoadPlan,
    /// The memory that holds it, from its lowest page to its highest.
    pub block: Block,
    /// The address it is linked at: that of its lowest page.
    pub virtual_base: u64,
}

impl KernelImage {
    /// Loads `file`, named `path` in errors.
    pub fn load(memory: &mut PhysicalMemory, path: &str, file: &[u8]) -> Self {
        let plan = match elf::plan_kernel(file) {
            Ok(plan) => plan,
            Err(error) => fail!("kernel {path}: {error}"),
        };
        let span = plan.span();
        if plan.kind != elf::Kind::Static || span.start < LOWEST_KERNEL_ADDRESS {
            fail!(
                "kernel {path}: {:?} ELF file for address {:#x}, a static one for {LOWEST_KERNEL_ADDRESS:#x} or above \
                 is needed",
                plan.kind,
                span.start
            );
        }
        let length = span.end - span.start;
        let block = memory.take(length, plan.align, u64::MAX, Kind::ExecutableAndModules, "the kernel");
        // The segments are page-wise apart or share a page: zeroing what no file byte covers needs no order.
        block.bytes.fill(0);
        for segment in &plan.segments {
            let from = segment.file_offset as usize;
            let to = (segment.vaddr - span.start) as usize;
            let size = segment.filesz as usize;
            block.bytes[to..to + size].copy_from_slice(&file[from..from + size]);
        }
        Self { plan, block, virtual_base: span.start }
    }

    /// The kernel's entry address.
    pub fn entry(&self) -> u64 {
        self.plan.entry
    }

    /// Maps every segment's pages with the segment's rights.
    pub fn map(&self, memory: &mut PhysicalMemory, tables: &mut PageTables) {
        for segment in &self.plan.segments {
            let flags = if segment.write { WRITABLE } else { 0 } | if segment.exec { 0 } else { NO_EXECUTE };
            let first = segment.vaddr & !(PAGE_SIZE - 1);
            for page in (first..=segment.vaddr + (segment.memsz - 1)).step_by(PAGE_SIZE as usize) {
                tables.map_page(memory, page, self.block.base + (page - self.virtual_base), flags);
            }
        }
    }
}
