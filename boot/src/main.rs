//! The direct loader: boots an unchanged Limine-protocol kernel from `qemu -kernel boot -initrd archive.cpio`
//! (PVH) or from GRUB (multiboot2), without firmware services.
//!
//! It runs once, on one CPU, with interrupts off, and reaches the first 4 GiB through an identity map. The kernel and
//! its modules come out of a newc cpio archive that holds limine.cfg.
#![no_std]
#![no_main]

extern crate alloc;

mod apic;
mod archive;
mod boot_info;
mod entry;
mod exception;
mod fail;
mod handoff;
mod heap;
mod kernel_image;
mod paging;
mod physical_memory;
mod pit;
mod port;
mod protocol;
mod requests;
mod rsdp;
mod rtc;
mod serial;
mod smp;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use apic::LocalApic;
use archive::{Archive, zero_terminated};
use boot_info::BootInfo;
use kcore::boot_memory_map::{BootMemoryMap, Kind, MapError};
use kernel_image::KernelImage;
use paging::PageTables;
use physical_memory::{PhysicalMemory, direct_map_of, firmware_bytes, loader_image};
use protocol::{Feature, MP_X2APIC, MemoryMapEntry, MpInfo, MpResponse, Words};
use requests::Requests;
use rsdp::Madt;

/// The loader from its first Rust instruction to the kernel's first; called by entry.rs alone.
extern "C" fn boot_main(magic: u32, information: u32) -> ! {
    // 1. A voice, a quiet machine.
    serial::initialise();
    exception::arm();
    apic::mask_pics();
    let features = handoff::prepare_cpu();

    // 2. What we were given.
    let boot = boot_info::read(magic, information);
    let Some((archive_base, archive_length)) = boot.archive else {
        fail!("no boot archive was given, a cpio is needed (QEMU: -initrd, GRUB: module2)");
    };
    let Some(archive) = firmware_bytes(archive_base, archive_length) else {
        fail!("the boot archive at {archive_base:#x}, {archive_length} bytes, is empty or above 4 GiB");
    };
    let mut memory = PhysicalMemory::new(memory_map(&boot, (archive_base, archive_length)));

    // 3. What to boot.
    let archive = Archive::open(archive);
    let configuration = archive.configuration();
    let kernel_path = configuration.kernel_path;
    let kernel_file = archive.file("KERNEL_PATH", kernel_path);
    let command_line = format!("{} {}", configuration.cmdline, boot.command_line);
    let command_line = command_line.trim();

    // 4. The kernel, and what it asks for.
    let kernel = KernelImage::load(&mut memory, kernel_path, kernel_file);
    let requests = Requests::collect(kernel.block.bytes);
    let field = |image: &[u8], feature| requests.field(image, feature);
    let stack_size = field(kernel.block.bytes, Feature::StackSize).unwrap_or(0).max(protocol::LEAST_STACK);
    let mp_flags = field(kernel.block.bytes, Feature::Mp);
    let mut answers = Vec::new();
    let mut answer = |feature, values: [u64; 3]| {
        answers.push((feature, direct_map_of(Box::leak(Box::new(Words { revision: 0, values })))));
    };

    // 5. Files.
    let executable = archive::describe(&mut memory, kernel_path, command_line, kernel_file);
    answer(Feature::ExecutableCommandLine, [executable.command_line, 0, 0]);
    answer(Feature::ExecutableFile, [direct_map_of(Box::leak(Box::new(executable))), 0, 0]);
    let mut modules = Vec::new();
    for module in &configuration.modules {
        let file = archive.file("MODULE_PATH", module.path);
        let file = archive::describe(&mut memory, module.path, module.cmdline, file);
        modules.push(direct_map_of(Box::leak(Box::new(file))));
    }
    answer(Feature::Modules, [modules.len() as u64, direct_map_of(modules.leak()), 0]);

    // 6. Plain facts.
    let version = zero_terminated(env!("CARGO_PKG_VERSION"));
    answer(Feature::BootloaderInfo, [zero_terminated("Quiesce direct loader"), version, 0]);
    answer(Feature::StackSize, [0; 3]);
    answer(Feature::Hhdm, [entry::DIRECT_MAP, 0, 0]);
    answer(Feature::ExecutableAddress, [kernel.block.base, kernel.virtual_base, 0]);
    if requests.has(Feature::DateAtBoot)
        && let Some(seconds) = rtc::unix_seconds()
    {
        answer(Feature::DateAtBoot, [seconds as u64, 0, 0]);
    }
    let root_pointer = boot.rsdp.or_else(rsdp::search);
    if let Some(address) = root_pointer {
        answer(Feature::Rsdp, [address + entry::DIRECT_MAP, 0, 0]);
    }

    // 7. The kernel's page tables.
    let mut tables = PageTables::new(&mut memory, features.has_huge_pages);
    let regions: Vec<(u64, u64)> = memory.map().regions().iter().map(|region| (region.base, region.length)).collect();
    tables.map_direct(&mut memory, &regions);
    kernel.map(&mut memory, &mut tables);

    // 8. The other CPUs, parked.
    let madt = root_pointer.map_or_else(Madt::default, rsdp::madt);
    madt.io_apics.iter().for_each(|&base| apic::mask_io_apic(base));
    if let Some(flags) = mp_flags {
        let apic = LocalApic::open(flags & MP_X2APIC != 0 && features.has_x2apic);
        let cpus = processors(&madt, &apic);
        smp::start(&apic, &mut memory, cpus, stack_size, tables.root());
        let response = MpResponse {
            revision: 0,
            flags: apic.is_x2apic.into(),
            bsp_lapic_id: apic.id(),
            cpu_count: cpus.len() as u64,
            cpus: direct_map_of(cpus.iter().map(direct_map_of).collect::<Vec<_>>().leak()),
        };
        requests.answer(kernel.block.bytes, Feature::Mp, direct_map_of(Box::leak(Box::new(response))));
    }

    // 9. The memory map, last: nothing is taken from it any more.
    // What of the archive is not in use in its place is free: the kernel, or a copy of it, has what it needs.
    let stack_end = smp::take_stack(&mut memory, stack_size);
    memory.give_back(archive_base, archive_length);
    let entries: Vec<u64> = memory
        .map()
        .regions()
        .iter()
        .map(|region| MemoryMapEntry { base: region.base, length: region.length, kind: region.kind as u64 })
        .map(|entry| direct_map_of(Box::leak(Box::new(entry))))
        .collect();
    answer(Feature::MemoryMap, [entries.len() as u64, direct_map_of(entries.leak()), 0]);

    // 10. The answers, the jump.
    for (feature, response) in answers {
        requests.answer(kernel.block.bytes, feature, response);
    }
    // SAFETY: 1. `tables` map the first 4 GiB into the direct map as the boot tables do, and the loader's image and
    // the stack lie there. 2. They map the kernel's segments, and its entry is in an executable one (checked by
    // `elf::plan_kernel`).
    unsafe { handoff::enter_kernel(tables.root(), stack_end, kernel.entry()) }
}

/// Firmware's map without what is in use: the loader, the boot information, the archive.
fn memory_map(boot: &BootInfo, archive: (u64, u64)) -> BootMemoryMap {
    let map = BootMemoryMap::from_firmware(boot.memory.iter().copied()).and_then(|mut map| {
        let (image, length) = loader_image();
        if !map
            .regions()
            .iter()
            .any(|region| region.kind == Kind::Usable && region.base <= image && image + length <= region.end())
        {
            fail!(
                "too little memory: {} KiB are usable, but not {image:#x}-{:#x} where the loader is",
                map.usable_below(u64::MAX) >> 10,
                image + length
            );
        }
        for &(base, length) in boot.occupied.iter().chain([&loader_image(), &archive]) {
            map.carve(base, length, Kind::BootloaderReclaimable)?;
        }
        Ok(map)
    });
    match map {
        Ok(map) => map,
        Err(MapError::TooManyRanges) => fail!(
            "firmware's memory map has {} ranges, at most {} can be used",
            boot.memory.len(),
            kcore::boot_memory_map::FIRMWARE_LIMIT
        ),
        Err(MapError::TooManyRegions) => {
            fail!("the memory map does not fit into {} regions", kcore::boot_memory_map::REGION_LIMIT)
        }
    }
}

/// The CPUs that can be addressed in the APIC's mode; the one that runs this is always among them.
fn processors(madt: &Madt, apic: &LocalApic) -> &'static [MpInfo] {
    const LAST_XAPIC_ID: u32 = 254;
    let own_id = apic.id();
    let mut cpus = Vec::with_capacity(madt.cpus.len() + 1);
    let information = |processor_id, lapic_id| MpInfo {
        processor_id,
        lapic_id,
        reserved: 0,
        goto_address: 0.into(),
        extra_argument: 0,
    };
    let reachable = |cpu: &&rsdp::Cpu| apic.is_x2apic || cpu.apic_id <= LAST_XAPIC_ID;
    cpus.extend(madt.cpus.iter().filter(reachable).map(|cpu| information(cpu.uid, cpu.apic_id)));
    let left_out = madt.cpus.len() - cpus.len();
    if left_out != 0 {
        fail::say(format_args!(
            "{left_out} of {} CPUs are left out: an APIC id above {LAST_XAPIC_ID} needs x2APIC mode, which is off",
            madt.cpus.len()
        ));
    }
    if cpus.iter().all(|cpu| cpu.lapic_id != own_id) {
        cpus.insert(0, information(0, own_id));
    }
    cpus.leak()
}
