//! Quiesce: the kernel. This file is the order in which it comes up.
#![no_std]
#![no_main]

extern crate alloc;

#[macro_use]
mod mutant;

mod arch;
mod console;
mod context_tracking;
mod entry;
mod errno;
mod fs;
mod isolation;
mod limine;
mod mm;
mod panic;
mod percpu;
mod process;
mod rcu;
mod sched;
mod smp;
mod spin_lock;
mod static_key;
mod syscall;
mod text_patch;
mod time;
mod trace;
mod tty;

use arch::cpu_features::Features;
use arch::irq_flag::IrqOff;
use arch::serial::{COM1, SerialPort};
use arch::{acpi, apic, idt, ioapic, tsc};
use core::convert::Infallible;
use kcore::cpu_set::CpuSet;

/// Entry point from the loader (Limine protocol): 64-bit mode, interrupts off, the loader's tables and stack.
#[unsafe(no_mangle)]
extern "C" fn kernel_start() -> ! {
    // SAFETY: the first thing on the boot CPU.
    unsafe { percpu::init_boot_cpu() };
    tsc::set_boot(tsc::now());
    let port = SerialPort::new(COM1);
    if port.present() {
        port.init();
    }
    let Err(why) = bring_up();
    panic::cannot_go_on(format_args!("{why}"))
}

/// The numbered steps from the loader's hand-over to the first schedule. It returns only if the kernel cannot go on.
fn bring_up() -> Result<Infallible, &'static str> {
    // 1. What the loader said, and what the CPU has.
    let boot = limine::read().map_err(|e| e.0)?;
    let features = Features::detect();
    if let Some(missing) = features.missing() {
        return Err(missing);
    }
    // 2. Memory: frames, our own page tables (W^X from here on), the heap comes by itself.
    mm::frame::init(&boot)?;
    mm::kernel_map::init(&boot, features.gib_pages)?;
    // 3. Exceptions: gates, then this CPU's registers. The APIC's registers are mapped before it is set up.
    install_gates();
    if let Some(phys) = apic::register_page() {
        apic::set_register_page(mm::kernel_map::map_device(phys, 4096).ok_or("out of memory for the APIC")?);
    }
    let irq_off = IrqOff::new();
    let me = percpu::this(&irq_off);
    // SAFETY: boot CPU, interrupts off, own page tables.
    unsafe { smp::bring_up::init_cpu(me, &features)? };
    if features.smap {
        // SAFETY: no other CPU runs kernel text yet.
        unsafe { text_patch::apply_smap() };
    }
    // 4. Time.
    time::calibrate::run(&features)?;
    time::wall::begin(boot.date_at_boot_s);
    mm::vdso::publish(&features, time::wall::at_0_ns());
    // 5. The command line decides.
    let nr_cpus = (boot.cpus.len() as u32).clamp(1, kcore::cpu_set::MAX_CPUS as u32);
    percpu::set_nr_cpus(nr_cpus);
    let cmdline: &'static str = alloc::string::String::from(boot.cmdline).leak();
    let params = kcore::cmdline::resolve(cmdline, nr_cpus, 0);
    console::set_level(if params.quiet { console::level::WARNING } else { params.loglevel });
    info!("Quiesce {} ({nr_cpus} CPUs, {} MiB)", env!("CARGO_PKG_VERSION"), mm::frame::ram_bytes() >> 20);
    info!("Command line: {cmdline}");
    params.complaints.iter().for_each(|c| warning!("{c}"));
    if params.complaints_lost > 0 {
        warning!("{} more complaints about the command line left out", params.complaints_lost);
    }
    info!(
        "{} ({} kHz), APIC in {} mode, its timer {}",
        time::calibrate::verdict(&features),
        tsc::khz(),
        if apic::is_x2apic() { "x2APIC" } else { "xAPIC" },
        if apic::is_timer_in_deadline_mode() { "in TSC-deadline mode" } else { "one-shot" }
    );
    panic::set_timeout(params.panic_timeout);
    time::tick::set_hz(params.hz);
    smp::deferred_work::set_enabled(params.defer);
    isolation::housekeeping::init(&params);
    // 6. The tracking key, once, before any other CPU runs kernel text.
    if !params.nohz_full.is_empty() {
        // SAFETY: no other CPU runs kernel text yet.
        let sites = unsafe { static_key::enable_alone(&static_key::TRACKING) }
            .unwrap_or_else(|e| panic!("the jump table is broken: {e}"));
        info!("nohz_full={}: context tracking on, {sites} sites patched", params.nohz_full);
    }
    // SAFETY: as above.
    unsafe { trace::rings::init(&params) };
    // 7. This context becomes CPU 0's idle task; the other CPUs come up.
    let idle = sched::task::new_idle(0).ok_or("out of memory for the idle task")?;
    sched::init_cpu(idle, &irq_off);
    sched::futex::init();
    let wanted = params.cpus_to_start(nr_cpus);
    let online = smp::bring_up::prepare_others(&boot, wanted)?;
    trace::rings::attach();
    route_interrupts(&boot, &params.irq_affinity);
    smp::bring_up::join(me, &irq_off);
    smp::bring_up::start_others(&boot, online, features);
    info!("{online} of {nr_cpus} CPUs up");
    // 8. Kernel threads, then the first program.
    arch::cpu_head::preempt_enable_no_resched();
    drop(irq_off);
    x86_64::instructions::interrupts::enable();
    rcu::start(params.rcu_stall_timeout_s);
    process::random::set_layout_random(params.random_layout);
    mm::failure::arm_all(params.fail_alloc);
    time::watchdog::start(params.watchdog_threshold_s);
    trace::stream::start(params.tp_printk);
    process::start_init(&boot, params)?;
    sched::idle::run()
}

/// Every vector has a gate: exceptions, the paranoid ones on IST stacks, interrupts.
fn install_gates() {
    use arch::gdt::Ist;
    use entry::{exception, irq, nmi};
    // The stubs are aligned, the functions that hold them need not be.
    let first = |f: unsafe extern "C" fn()| (f as *const () as u64).next_multiple_of(irq::STUB_SIZE as u64);
    let (exceptions, irqs) = (first(exception::exception_stubs), first(irq::irq_stubs));
    for v in 0..=255u8 {
        let (base, number) = if v < 32 { (exceptions, v) } else { (irqs, v - irq::FIRST_VECTOR as u8) };
        idt::set_gate(v, base + number as u64 * irq::STUB_SIZE as u64, None, v == 4);
    }
    idt::set_gate(1, nmi::debug_entry as *const () as u64, Some(Ist::Debug), false);
    idt::set_gate(2, nmi::nmi_entry as *const () as u64, Some(Ist::Nmi), false);
    idt::set_gate(3, entry::breakpoint::breakpoint_entry as *const () as u64, None, true);
    idt::set_gate(8, nmi::double_fault_entry as *const () as u64, Some(Ist::DoubleFault), false);
    idt::set_gate(18, nmi::machine_check_entry as *const () as u64, Some(Ist::MachineCheck), false);
}

/// The serial console's interrupt goes to the first CPU of `irqaffinity=`, by default a housekeeping one; all other inputs stay masked.
fn route_interrupts(boot: &limine::BootInfo, affinity: &CpuSet) {
    let platform = acpi::read(boot.rsdp_phys);
    for chip in &platform.ioapics {
        if let Some(virt) = mm::kernel_map::map_device(chip.phys, 0x20) {
            ioapic::add(virt, chip.first_gsi);
        }
    }
    let irq = arch::serial::COM1_IRQ;
    let wiring = platform.overrides.iter().find(|o| o.isa_irq == irq);
    let (gsi, level, low) = wiring.map_or((irq as u32, false, false), |o| (o.gsi, o.level, o.active_low));
    let cpu = affinity.iter().find(|&c| percpu::get(c).is_some()).unwrap_or(isolation::housekeeping::first());
    let wiring = isolation::irq_affinity::Wiring { gsi, level, active_low: low };
    if !isolation::irq_affinity::route(irq, "serial", &wiring, cpu) {
        warning!("no I/O APIC input for the serial console: input is polled by nobody");
    }
    SerialPort::new(COM1).enable_receive_interrupt();
}
