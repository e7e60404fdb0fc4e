//! Writing kernel text: through a temporary mapping on the patching CPU, since text is read-only everywhere else.

use crate::mm::kernel_map;

unsafe extern "C" {
    static __start_jump_table: u8;
    static __stop_jump_table: u8;
    static __start_stac_sites: u8;
    static __stop_stac_sites: u8;
    static __start_clac_sites: u8;
    static __stop_clac_sites: u8;
    static __text_start: u8;
    static __text_end: u8;
}

fn section(start: *const u8, stop: *const u8) -> &'static [u8] {
    // SAFETY: the linker script puts both symbols around one read-only section.
    unsafe { core::slice::from_raw_parts(start, stop.offset_from(start) as usize) }
}

/// The jump table's bytes.
pub fn jump_table() -> &'static [u8] {
    section(&raw const __start_jump_table, &raw const __stop_jump_table)
}

fn in_text(address: u64, len: u64) -> bool {
    address >= &raw const __text_start as u64 && address + len <= &raw const __text_end as u64
}

/// The five bytes at a site. The address comes from the jump table.
pub fn read_site(address: u64) -> [u8; 5] {
    assert!(in_text(address, 5), "jump-table entry outside kernel text");
    // SAFETY: checked to lie in kernel text, which is readable.
    unsafe { core::ptr::read(address as *const [u8; 5]) }
}

/// Write `bytes` over kernel text at `address` and serialise this CPU.
///
/// # Safety
/// No CPU executes these bytes meanwhile, or each serialises before it does.
pub unsafe fn write_text(address: u64, bytes: &[u8]) {
    assert!(in_text(address, bytes.len() as u64), "patch outside kernel text");
    for (i, &b) in bytes.iter().enumerate() {
        let at = address + i as u64;
        // SAFETY: the alias maps the text's own frame, writable, for this CPU's use only.
        unsafe { kernel_map::with_text_alias(at, |alias| alias.write_volatile(b)) };
    }
    core::arch::x86_64::__cpuid(0);
}

/// Where the CPU has SMAP: turn the 3-byte NOPs of entry paths and user copies into CLAC and STAC. Boot CPU, before
/// other CPUs run.
///
/// # Safety
/// No other CPU runs kernel text.
pub unsafe fn apply_smap() {
    const CLAC: [u8; 3] = [0x0f, 0x01, 0xca];
    const STAC: [u8; 3] = [0x0f, 0x01, 0xcb];
    let clac = section(&raw const __start_clac_sites, &raw const __stop_clac_sites);
    let stac = section(&raw const __start_stac_sites, &raw const __stop_stac_sites);
    for (sites, bytes) in [(clac, &CLAC), (stac, &STAC)] {
        for site in sites.chunks_exact(8) {
            let address = u64::from_le_bytes(site.try_into().expect("chunks of 8"));
            // SAFETY: the caller's condition; the site holds a 3-byte NOP.
            unsafe { write_text(address, bytes) };
        }
    }
}
