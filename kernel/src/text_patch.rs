//! Writing kernel text: through a temporary mapping on the patching CPU, since text is read-only everywhere else.
//!
//! Before other CPUs run, `write_text` alone. Later `poke`, by the steps of `kcore::text_poke`: INT3 first, and every CPU has serialised
//! between the steps; one that runs no kernel code is not interrupted for it, but does so when it enters the kernel next.

use crate::arch::kernel_text::{entry_text, text};
use crate::mm::kernel_map;
use crate::percpu;
use crate::smp::deferred_work;
use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::static_key::{JumpEntry, PatchError, SITE_LEN, plan};
use kcore::text_poke::{INT3, PokeList, STEPS, Step};

/// Sites that are patched by one run through the steps.
const BATCH: usize = 64;
/// The sites that are being patched while CPUs may run into them.
static POKES: PokeList<BATCH> = PokeList::new();
static LISTED_TRAPS: AtomicU64 = AtomicU64::new(0);
static LATE_TRAPS: AtomicU64 = AtomicU64::new(0);
/// NMIs that came, on any CPU, while sites held INT3 in front of old, mixed or new bytes.
static NMIS_BETWEEN: AtomicU64 = AtomicU64::new(0);
/// Held while a batch is patched. What a test wants done while sites hold INT3.
static PATCHING: SpinLock<Option<fn()>, { rank::RCU }> = SpinLock::new(None);

unsafe extern "C" {
    static __start_jump_table: u8;
    static __stop_jump_table: u8;
    static __start_stac_sites: u8;
    static __stop_stac_sites: u8;
    static __start_clac_sites: u8;
    static __stop_clac_sites: u8;
}

/// Where the CPU that executed INT3 at `address` goes on; `None` if that is no site of ours. #BP, any CPU, interrupts off.
///
/// A site whose INT3 is gone already goes on as its bytes say now. By the steps that cannot be; QEMU's TCG does it, where a CPU may
/// keep a translation of bytes that were read just before another CPU wrote them. It is counted.
pub fn trapped_at(address: u64) -> Option<u64> {
    loop {
        if let Some(target) = POKES.lookup(address) {
            LISTED_TRAPS.fetch_add(1, Ordering::Relaxed);
            return Some(target);
        }
        let entry = kcore::static_key::entries(jump_table()).ok()?.find(|entry| entry.code == address)?;
        let now = read_site(address);
        // A batch that starts now has written INT3 and cannot go on before this CPU has answered its sync.
        let Some(on) = kcore::static_key::state(&entry, &now) else {
            if now[0] == INT3 && POKES.lookup(address).is_some() {
                continue;
            }
            return None;
        };
        LATE_TRAPS.fetch_add(1, Ordering::Relaxed);
        return Some(if on { entry.target } else { address + SITE_LEN as u64 });
    }
}

/// How often INT3 was executed at a site that was listed, and at one that did not hold it any more.
pub fn traps() -> (u64, u64) {
    (LISTED_TRAPS.load(Ordering::Relaxed), LATE_TRAPS.load(Ordering::Relaxed))
}

/// NMIs that were counted between a batch's first INT3 and its new first bytes.
pub fn nmis_between() -> u64 {
    NMIS_BETWEEN.load(Ordering::Relaxed)
}

/// From now on the CPU that patches does `what` twice for each batch, while its sites hold INT3: a test's lever.
pub fn do_between(what: Option<fn()>) {
    *PATCHING.lock() = what;
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
    let text = text();
    address >= text.start && address + len <= text.end
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

/// Make `sites` read as on or off while all CPUs run. Process context, interrupts on: it waits for CPUs that run the kernel.
/// A site with foreign bytes is refused, and nothing is written. Entry text is never patched: such
/// a site is a bug of the caller. Tells how many sites changed.
pub fn poke(sites: &[JumpEntry], on: bool) -> Result<usize, PatchError> {
    let between = PATCHING.lock();
    let mut changes = alloc::vec::Vec::new();
    for entry in sites {
        assert!(!entry_text().contains(&entry.code), "entry text is patched at boot alone");
        let now = read_site(entry.code);
        let new = plan(entry, &now, on)?;
        if new != now {
            changes.push((entry, new));
        }
    }
    for batch in changes.chunks(BATCH) {
        let mut nmis = 0;
        for step in STEPS {
            if step == Step::Head {
                NMIS_BETWEEN.fetch_add(percpu::nmis() - nmis, Ordering::Relaxed);
            }
            take(step, batch, on);
            if step == Step::Trap {
                nmis = percpu::nmis();
            }
            if let (Step::Trap | Step::Tail, Some(what)) = (step, *between) {
                what();
            }
        }
    }
    Ok(changes.len())
}

fn take(step: Step, batch: &[(&JumpEntry, [u8; SITE_LEN])], on: bool) {
    let write = |part: fn(&[u8; SITE_LEN]) -> (u64, &[u8])| {
        for (entry, new) in batch {
            let (offset, bytes) = part(new);
            // SAFETY: 1. the site holds its old or new bytes (`plan`); 2. who runs into it now meets INT3, which is listed, or
            // one of the two whole instructions: `kcore::text_poke` has the order and its proof.
            unsafe { write_text(entry.code + offset, bytes) };
        }
    };
    match step {
        Step::Publish => {
            let goes_on = |entry: &JumpEntry| if on { entry.target } else { entry.code + SITE_LEN as u64 };
            assert!(POKES.publish(batch.iter().map(|(entry, _)| (entry.code, goes_on(entry)))), "a batch in a batch");
        }
        Step::Trap => write(|_| (0, &[INT3])),
        Step::Tail => write(|new| (1, &new[1..])),
        Step::Head => write(|new| (0, &new[..1])),
        Step::Sync => deferred_work::sync_text(),
        Step::Retire => POKES.retire(),
    }
}
