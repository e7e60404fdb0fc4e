//! Every request to the boot loader (Limine protocol, base revision 2), and the answers in plain types.
//!
//! Called once by the boot CPU from `main`. The answers lie in memory that the kernel takes over later, so what
//! is needed longer is copied here.

use core::ffi::CStr;
use limine::BaseRevision;
use limine::memory_map::{Entry, EntryType};
use limine::mp::{Cpu, RequestFlags};
use limine::request::{
    DateAtBootRequest, ExecutableAddressRequest, ExecutableCmdlineRequest, ExecutableFileRequest, HhdmRequest,
    MemoryMapRequest, ModuleRequest, MpRequest, RequestsEndMarker, RequestsStartMarker, RsdpRequest, StackSizeRequest,
};

#[used]
#[unsafe(link_section = ".limine_requests_start")]
static START: RequestsStartMarker = RequestsStartMarker::new();
#[used]
#[unsafe(link_section = ".limine_requests_end")]
static END: RequestsEndMarker = RequestsEndMarker::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static BASE_REVISION: BaseRevision = BaseRevision::with_revision(2);
#[used]
#[unsafe(link_section = ".limine_requests")]
static STACK_SIZE: StackSizeRequest = StackSizeRequest::new().with_size(64 * 1024);
#[used]
#[unsafe(link_section = ".limine_requests")]
static HHDM: HhdmRequest = HhdmRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static FILE: ExecutableFileRequest = ExecutableFileRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static CMDLINE: ExecutableCmdlineRequest = ExecutableCmdlineRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MODULES: ModuleRequest = ModuleRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static RSDP: RsdpRequest = RsdpRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static DATE: DateAtBootRequest = DateAtBootRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MP: MpRequest = MpRequest::new().with_flags(RequestFlags::X2APIC);

/// What the loader said, in plain types. Valid until the loader's memory is reclaimed (we never reclaim it).
pub struct BootInfo {
    /// Physical address of the kernel image's first byte.
    pub kernel_phys: u64,
    /// Memory map, sorted by base.
    pub memory_map: &'static [&'static Entry],
    /// The command line; bytes that are no UTF-8 end it.
    pub cmdline: &'static str,
    /// The root file system archive, if one was given.
    pub initrd: Option<&'static [u8]>,
    /// Physical address of the RSDP.
    pub rsdp_phys: Option<u64>,
    /// Seconds since 1970 at boot, 0 if the loader did not say.
    pub date_at_boot_s: u64,
    /// All CPUs that the loader found, the boot CPU among them.
    pub cpus: &'static [&'static Cpu],
    /// APIC id of the boot CPU.
    pub boot_apic_id: u32,
}

/// Why the loader's answers cannot be used.
pub struct Unusable(pub &'static str);

fn text(c: &'static CStr) -> &'static str {
    match c.to_str() {
        Ok(s) => s,
        Err(e) => core::str::from_utf8(&c.to_bytes()[..e.valid_up_to()]).unwrap_or(""),
    }
}

/// The direct map's offset that this kernel is built for (`arch::page_table::DIRECT_MAP`), checked here.
pub fn read() -> Result<BootInfo, Unusable> {
    if !BASE_REVISION.is_supported() {
        return Err(Unusable("the loader does not speak base revision 2 of the Limine protocol"));
    }
    let offset = HHDM.get_response().ok_or(Unusable("the loader gave no direct map"))?.offset();
    if offset != crate::arch::page_table::DIRECT_MAP {
        return Err(Unusable("the loader's direct map is not at 0xffff800000000000"));
    }
    let memory_map = MEMORY_MAP.get_response().ok_or(Unusable("the loader gave no memory map"))?.entries();
    let address = ADDRESS.get_response().ok_or(Unusable("the loader gave no kernel address"))?;
    // The command line: newer loaders answer the request of its own, older ones give it as the file's string.
    let cmdline = match (CMDLINE.get_response(), FILE.get_response()) {
        (Some(r), _) if !r.cmdline().is_empty() => text(r.cmdline()),
        (_, Some(f)) => text(f.file().string()),
        _ => "",
    };
    let initrd = MODULES.get_response().and_then(|m| m.modules().first().copied()).map(|f| {
        // SAFETY: 1. the protocol says that addr() and size() describe the loaded module in the direct map;
        // 2. its memory is typed kernel-and-modules, which the frame allocator never hands out.
        unsafe { core::slice::from_raw_parts(f.addr(), f.size() as usize) }
    });
    let mp = MP.get_response().ok_or(Unusable("the loader gave no list of CPUs"))?;
    Ok(BootInfo {
        kernel_phys: address.physical_base(),
        memory_map,
        cmdline,
        initrd,
        rsdp_phys: RSDP.get_response().map(|r| {
            let a = r.address() as u64;
            if a >= offset { a - offset } else { a }
        }),
        date_at_boot_s: DATE.get_response().map_or(0, |d| d.timestamp().as_secs()),
        cpus: mp.cpus(),
        boot_apic_id: mp.bsp_lapic_id(),
    })
}

/// Whether the frames of this entry may be handed out.
pub fn is_usable(e: &Entry) -> bool {
    e.entry_type == EntryType::USABLE
}

/// Whether this entry is RAM of any kind: counted as given to us.
pub fn is_ram(e: &Entry) -> bool {
    [EntryType::USABLE, EntryType::BOOTLOADER_RECLAIMABLE, EntryType::EXECUTABLE_AND_MODULES].contains(&e.entry_type)
}
