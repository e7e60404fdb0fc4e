//! Starting the other CPUs: the loader left them waiting; each gets its area, then all are sent off at once and join.
//!
//! Called by the boot CPU. A CPU that waits in the loader spins, so everything that must not happen while others run is done before
//! the first is sent off, and none waits in the kernel: it joins, and halts in its idle task. The work is linear in the CPUs.

use crate::arch::cpu_features::Features;
use crate::arch::irq_flag::IrqOff;
use crate::arch::{apic, fpu, gdt, idt, machine_check, page_table, tsc};
use crate::limine::BootInfo;
use crate::mm::{kernel_map, stack};
use crate::percpu::{self, Percpu};
use crate::{entry, isolation::housekeeping, sched};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};
use limine::mp::Cpu;

static JOINED: AtomicU64 = AtomicU64::new(0);
static FEATURES: spin::Once<Features> = spin::Once::new();

/// Load what every CPU needs: segments, IDT, control registers, FPU, system calls, APIC.
///
/// # Safety
/// 1. Interrupts are off; 2. GS is this CPU's area `me`; 3. the kernel's page tables are loaded.
pub unsafe fn init_cpu(me: &'static Percpu, features: &Features) -> Result<(), &'static str> {
    let mut ist = [0; gdt::IST_COUNT];
    for slot in &mut ist {
        *slot = stack::new_ist(me as *const Percpu as u64).ok_or("out of memory for IST stacks")?;
    }
    // SAFETY: the caller's conditions; each stack is this CPU's alone.
    unsafe {
        machine_check::init_cpu(features);
        features.apply();
        me.segments.load(ist);
        idt::load();
        fpu::init_cpu(features.xsave);
        entry::syscall::init_cpu();
        apic::init_cpu(me.cpu() == 0);
        if features.rdtscp || features.rdpid {
            tsc::set_cpu_number(me.cpu());
        }
    }
    me.apic_id.store(apic::id(), Ordering::Relaxed);
    me.address_space_root.store(kernel_map::root(), Ordering::Relaxed);
    Ok(())
}

/// What a CPU does last before it schedules: its isolation role, its timer.
pub fn join(me: &Percpu, irq_off: &IrqOff) {
    let cpu = me.cpu();
    if housekeeping::is_isolated(cpu) {
        me.head.isolated.store(1, Ordering::Relaxed);
    }
    if housekeeping::is_nohz_full(cpu) {
        crate::context_tracking::activate(0, irq_off);
    } else {
        crate::time::tick::hold_for_housekeeping(me);
    }
    apic::timer_enable(irq_off);
    me.state_since_tsc.store(tsc::now(), Ordering::Relaxed);
    percpu::set_online(cpu);
    sched::placement::set_open(cpu, true);
}

struct Handover {
    area: &'static Percpu,
    idle: sched::task::TaskRef,
}

/// The CPUs that the loader holds: all but the boot CPU.
fn others(boot: &BootInfo) -> impl Iterator<Item = &Cpu> {
    boot.cpus.iter().copied().filter(|c| c.lapic_id != boot.boot_apic_id)
}

/// Make the areas and idle tasks of up to `wanted` CPUs in all (the boot CPU counts). CPU numbers follow the loader's order, the boot CPU
/// first. Returns how many CPUs have one; none of them runs yet.
pub fn prepare_others(boot: &BootInfo, wanted: u32) -> Result<u32, &'static str> {
    let mut prepared = 1;
    for cpu in others(boot).take(wanted.saturating_sub(1) as usize) {
        prepare_one(cpu, prepared)?;
        prepared += 1;
    }
    Ok(prepared)
}

fn prepare_one(cpu: &Cpu, number: u32) -> Result<(), &'static str> {
    const NO_MEMORY: &str = "out of memory for per-CPU areas";
    let layout = core::alloc::Layout::new::<Percpu>();
    // SAFETY: the layout is not empty.
    let p = unsafe { alloc::alloc::alloc(layout) } as *mut Percpu;
    if p.is_null() {
        return Err(NO_MEMORY);
    }
    // SAFETY: freshly allocated with the right layout, never freed.
    let area: &'static Percpu = unsafe {
        p.write(Percpu::new());
        &*p
    };
    let idle = sched::task::new_idle(number).ok_or(NO_MEMORY)?;
    area.apic_id.store(cpu.lapic_id, Ordering::Relaxed);
    percpu::publish(area, number);
    let handover = Box::new(Handover { area, idle });
    cpu.extra.store(Box::into_raw(handover) as u64, Ordering::Release);
    Ok(())
}

/// Send off the CPUs that `prepare_others` prepared, and wait until all have joined. Everything that must not happen with them running
/// is done; this CPU has joined.
pub fn start_others(boot: &BootInfo, prepared: u32, features: Features) {
    FEATURES.call_once(|| features);
    let others_prepared = prepared - 1;
    for (index, cpu) in others(boot).enumerate() {
        // Unused CPUs wait in kernel text, halted, instead of in the loader's memory.
        cpu.goto_address.write(if index < others_prepared as usize { first_instruction } else { park });
    }
    while JOINED.load(Ordering::Acquire) < u64::from(others_prepared) {
        core::hint::spin_loop();
    }
}

/// Where the loader sends an AP: on to the kernel's tables and its own idle stack.
///
/// # Safety
/// The loader calls it once per CPU, interrupts off, on its own page tables.
unsafe extern "C" fn first_instruction(cpu: &Cpu) -> ! {
    let handover = cpu.extra.load(Ordering::Acquire) as *mut Handover;
    // SAFETY: `prepare_one` stored the box there, in the direct map; the release pairs with the loader's read of
    // goto_address.
    let top = unsafe { (*handover).idle.stack_top() };
    // SAFETY: 1. the kernel's tables map everything used from here on; 2. the idle stack is this CPU's alone.
    unsafe {
        x86_64::registers::control::Efer::update(|e| {
            e.insert(x86_64::registers::control::EferFlags::NO_EXECUTE_ENABLE)
        });
        page_table::load(kernel_map::root());
        core::arch::asm!(
            "mov rsp, {top}", "xor ebp, ebp", "call {main}", "ud2",
            top = in(reg) top - 16, main = sym on_own_stack, in("rdi") handover,
            options(noreturn)
        );
    }
}

unsafe extern "C" fn on_own_stack(handover: *mut Handover) -> ! {
    // SAFETY: handed over by `first_instruction`, which gave up the box.
    let area = unsafe { (*handover).area };
    // SAFETY: interrupts are off since the loader; the area is this CPU's. GS comes before the heap is used.
    let idle = unsafe {
        percpu::install(area, area.head.cpu.load(Ordering::Relaxed));
        let Handover { idle, .. } = *Box::from_raw(handover);
        idle
    };
    // SAFETY: as above; the tables were loaded by `first_instruction`.
    unsafe {
        if let Err(why) = init_cpu(area, FEATURES.get().expect("set before any CPU starts")) {
            panic!("cpu {}: {why}", area.cpu());
        }
    }
    let irq_off = IrqOff::new();
    sched::init_cpu(idle, &irq_off);
    join(area, &irq_off);
    JOINED.fetch_add(1, Ordering::AcqRel);
    crate::arch::cpu_head::preempt_enable_no_resched();
    drop(irq_off);
    sched::idle::run()
}

unsafe extern "C" fn park(_: &Cpu) -> ! {
    // SAFETY: the kernel's tables map this text; their NX bits need EFER.NXE.
    unsafe {
        x86_64::registers::control::Efer::update(|e| {
            e.insert(x86_64::registers::control::EferFlags::NO_EXECUTE_ENABLE)
        });
        page_table::load(kernel_map::root());
    }
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
