//! /sys/kernel/quiesce/debug: levers for scenarios and torture, each of which does what the kernel does by itself at some time.
//!
//! `kernel_page` reads a word through one page of unmappable kernel memory; a number written to `kernel_page_move` moves that page to
//! another frame so often, and the word counts the moves. A number written to `sync_text` serialises all CPUs so often, as new
//! kernel text does; `traps` is how often a CPU met a breakpoint of ours, and one that was gone already (`text_patch::trapped_at`), and how many NMIs came while
//! sites held them.
//! `rcu` forces grace periods, and `rcu_stall` holds them for so many milliseconds, or until `off CPU` is written to it: it shows on which CPUs;
//! `rcu_fanout` measures their tree; `absent_msr` asks for a register that is not there;
//! `user_access` tries what SMAP and SMEP refuse.
//! `soft` or `hard` written to `lockup` hangs this CPU, with interrupts on or off, until the watchdog has told it.
//! `nmi`, `nmis`, `nested` or `stack` written to `panic` ends the kernel in an NMI with the console held, with an NMI before each line, by a panic with a second one in
//! it, or by a stack that is too small.
//! A CPU's number written to `nmi` sends it one, and written to `nmi_line` lets the machine's NMI line interrupt that CPU alone;
//! `torture…` is in torture.rs.

use crate::arch::apic;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::{PAGE_SIZE, phys_to_virt};
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::fs::generated::Item;
use crate::mm::{frame, kernel_map, stack, tlb_flush};
use crate::percpu;
use crate::rcu;
use crate::rcu::deferred_free::{free_rcu, reclaim};
use crate::smp::call_function::call;
use crate::smp::{deferred_work, stack_sample};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use crate::time::{timer, watchdog};
use alloc::boxed::Box;
use alloc::string::String;
use arrayvec::ArrayVec;
use core::fmt::Write;
use kcore::cpu_set::SharedCpuSet;
use kcore::ipi_ledger::IpiCause;

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::File("kernel_page", read_page),
    Item::Control("kernel_page_move", |_, text| (0..number(text)?).try_for_each(|_| move_page()).ok_or(errno::ENOMEM)),
    Item::Control("sync_text", |_, text| {
        (0..number(text)?).for_each(|_| deferred_work::sync_text());
        Ok(())
    }),
    Item::Control("rcu", force_grace_periods),
    Item::Setting("rcu_stall", |_, out| readers(out), |_, text| hold_or_end(text)),
    Item::File("rcu_fanout", super::rcu_fanout::read),
    Item::File("absent_msr", super::absent_msr::read),
    Item::File("user_access", super::user_access::read),
    Item::File("torture", super::torture::read),
    Item::Control("torture_read", super::torture::look),
    Item::Control("torture_update", super::torture::update),
    Item::Control("torture_srcu_read", super::torture::look_and_sleep),
    Item::Control("torture_srcu_update", super::torture::update_srcu),
    Item::Control("nmi", |_, text| {
        let cpu = number(text)?;
        if !percpu::is_online(cpu) {
            return Err(errno::EINVAL);
        }
        stack_sample::take(cpu).map(|_| ()).ok_or(errno::EAGAIN)
    }),
    Item::Setting("nmi_burst", super::nmi_burst::read, super::nmi_burst::write),
    Item::Control("poke_nmis", |_, text| super::nmi_burst::write_poke(text)),
    Item::Control("lockup", lock_up),
    Item::Control("panic", |_, text| match text.trim_ascii() {
        b"nmi" => crate::panic::panic_in_nmi(),
        // A wild frame pointer: the epitaph panics at its stack.
        b"nested" => crate::panic::panic_nested(),
        b"nmis" => crate::panic::panic_with_nmis(),
        b"stack" => crate::panic::panic_of_stack(),
        _ => Err(errno::EINVAL),
    }),
    Item::Control("nmi_line", |_, text| {
        let cpu = number(text)?;
        if !percpu::is_online(cpu) {
            return Err(errno::EINVAL);
        }
        percpu::online().iter().for_each(|at| call(at, IpiCause::Injected, move_nmi_line, cpu as usize));
        Ok(())
    }),
    Item::File("traps", |_, out| {
        let (listed, late) = crate::text_patch::traps();
        let _ = writeln!(out, "listed={listed} late={late} nmis_between={}", crate::text_patch::nmis_between());
        Ok(())
    }),
    Item::File("kernel_stacks", |_, out| {
        let (free, trimmed) = stack::counts();
        let kib = stack::TASK_STACK_PAGES * (PAGE_SIZE >> 10);
        let _ = writeln!(out, "free={free} trimmed={trimmed} kib={kib}");
        Ok(())
    }),
];

/// On each CPU: the machine's NMI line interrupts CPU `to`.
fn move_nmi_line(to: usize) {
    let irq_off = IrqOff::new();
    apic::take_nmi_line(percpu::this(&irq_off).cpu() as usize == to, &irq_off);
}

/// `normal N`, `expedited N`, `barrier N`, `poll N`, `cond N`, `srcu N`, or `free N` and `reclaim N` of memory: so many, one after the other.
fn force_grace_periods(_: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let (kind, times) = text.trim().split_once(' ').ok_or(errno::EINVAL)?;
    let one = match kind {
        "normal" => rcu::synchronize,
        "expedited" => rcu::synchronize_expedited,
        "barrier" => rcu::barrier,
        "poll" => || {
            let cookie = rcu::start_poll_synchronize_rcu();
            while !rcu::poll_state_synchronize_rcu(cookie) {
                timer::sleep_ns(100_000, false);
            }
        },
        "cond" => || rcu::cond_synchronize_rcu(rcu::get_state_synchronize_rcu()),
        "srcu" => || rcu::srcu::TORTURE.synchronize_srcu(),
        "free" => || free_rcu(Box::new([0u64; 8])),
        "reclaim" => || {
            free_rcu(Box::new([0u64; 8]));
            reclaim();
        },
        _ => return Err(errno::EINVAL),
    };
    (0..number(times.as_bytes())?).for_each(|_| one());
    Ok(())
}

/// CPUs with a reader of `hold_grace_periods`, which lasts as long as it is in here.
static READERS: SharedCpuSet = SharedCpuSet::new();

fn readers(out: &mut String) -> Result<(), Errno> {
    percpu::online().iter().filter(|&cpu| READERS.contains(cpu)).for_each(|cpu| {
        let _ = writeln!(out, "cpu={cpu}");
    });
    Ok(())
}

/// ENOENT: no such reader.
fn end_reader(cpu: u32) -> Result<(), Errno> {
    if !percpu::online().contains(cpu) || !READERS.contains(cpu) {
        return Err(errno::ENOENT);
    }
    READERS.set(cpu, false);
    Ok(())
}

fn hold_or_end(text: &[u8]) -> Result<(), Errno> {
    match text.strip_prefix(b"off ") {
        Some(cpu) => end_reader(number(cpu)?),
        None => {
            hold_grace_periods(number(text)?);
            Ok(())
        }
    }
}

/// A reader that lasts `ms` milliseconds on this CPU, unless it is ended.
fn hold_grace_periods(ms: u32) {
    let reader = rcu::read();
    let cpu = percpu::this(&reader).cpu();
    READERS.set(cpu, true);
    let (start, ticks) = (tsc::now(), tsc::ns_to_ticks(ms as u64 * 1_000_000));
    while tsc::now().wrapping_sub(start) < ticks && READERS.contains(cpu) {
        // A PAUSE in each round would end this CPU's turn under QEMU's instruction clock, and time would crawl.
        (0..10_000).for_each(|i| {
            core::hint::black_box(i);
        });
        core::hint::spin_loop();
    }
    READERS.set(cpu, false);
    drop(reader);
}

/// A CPU that hangs: the watchdog has to tell it within this time.
fn lock_up(_: u64, text: &[u8]) -> Result<(), Errno> {
    const LONGEST_NS: u64 = 120_000_000_000;
    let hard = match text.trim_ascii() {
        b"hard" => true,
        b"soft" => false,
        _ => return Err(errno::EINVAL),
    };
    let stays = PreemptOff::new();
    let _irq_off = hard.then(IrqOff::new);
    let cpu = percpu::this(&stays).cpu();
    let (told, give_up_tsc) = (watchdog::told(cpu), tsc::now() + tsc::ns_to_ticks(LONGEST_NS));
    while watchdog::told(cpu) == told && tsc::now() < give_up_tsc {
        core::hint::spin_loop();
    }
    if watchdog::told(cpu) == told { Err(errno::ETIMEDOUT) } else { Ok(()) }
}

/// The most that one write does.
const MOST: u32 = 100_000;

/// The number that was written.
pub fn number(text: &[u8]) -> Result<u32, Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    text.trim().parse().ok().filter(|&n| n <= MOST).ok_or(errno::EINVAL)
}

/// Address of the page; 0: not reserved yet. The lock is held while it moves.
static PAGE: SpinLock<u64, { rank::PROCESS }> = SpinLock::new(0);

fn read_page(_: u64, out: &mut String) -> Result<(), Errno> {
    if *PAGE.lock() == 0 {
        move_page().ok_or(errno::ENOMEM)?;
    }
    let page = PAGE.lock();
    if *page == 0 {
        return Err(errno::ENOMEM); // it ran out while another moved the page
    }
    // SAFETY: the page that is reserved is mapped whenever the lock is open.
    let word = unsafe { (*page as *const u64).read_volatile() };
    drop(page);
    let _ = writeln!(out, "{word}");
    Ok(())
}

/// Another frame with the next number comes in its place. `None` without memory.
fn move_page() -> Option<()> {
    let mut page = PAGE.lock();
    if *page == 0 {
        *page = kernel_map::reserve(1, 1)?;
    }
    let mut old = ArrayVec::<u64, 1>::new();
    kernel_map::take(*page, 1, &mut old);
    tlb_flush::flush_kernel();
    // SAFETY: the direct-map address of a frame that is ours until it is released below.
    let word = old.first().map_or(0, |&phys| unsafe { (phys_to_virt(phys) as *const u64).read() });
    // The new frame comes before the old one goes, so that they differ.
    let filled = kernel_map::fill(*page, 1);
    for phys in old {
        // SAFETY: as above: what a stale translation would still show.
        unsafe { core::slice::from_raw_parts_mut(phys_to_virt(phys) as *mut u64, PAGE_SIZE as usize / 8) }.fill(POISON);
        frame::release(phys);
    }
    if filled.is_none() {
        *page = 0; // another time, another address
        return None;
    }
    // SAFETY: freshly mapped, ours. No translation was there before, or it was flushed, here at once.
    unsafe { (*page as *mut u64).write_volatile(word + 1) };
    Some(())
}

/// What freed pages of this file hold.
const POISON: u64 = 0xdead_dead_dead_dead;
