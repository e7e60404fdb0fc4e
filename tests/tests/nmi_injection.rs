//! Scenario: an NMI at every instruction of the entry paths, a second one at every instruction of its own path, and a #DB behind every access
//! to memory, while the guest goes through all kinds of entry with known registers. `make inject` shows what is reached and what is not; `make test` has the paths of
//! system calls and of the timer's interrupt.

use host::failure::Failure;
use host::gdb::{self, Gdb};
use host::inject::{self, Injector, Report};
use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm, skip};

/// The CPU that is tracked and gets the NMIs.
const CPU: u32 = 1;
/// Rounds of the guest's program after which what was not reached counts as never reached.
const ROUNDS: u32 = 500;

/// A guest that runs the program, and the debugger at its CPU.
fn begin(limit_s: u64) -> Result<(Running, Injector), Failed> {
    let name = gdb::socket_name();
    let arguments = gdb::arguments(&name);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let vm = Vm::new().smp(2).cmdline("nohz_full=1 trace_event=irq,ipi,context,syscalls").limit(limit_s);
    let mut guest = vm.qemu_args(&words).spawn()?;
    guest.prompt()?;
    guest.send(&format!("hazard_nmi {CPU} {ROUNDS} &\n"))?;
    guest.expect("hazard_nmi begins")?;
    let injector = Injector::new(Gdb::connect(&name)?, guest.kernel(), CPU)?;
    Ok((guest, injector))
}

/// What the injections came to, or why there is no result: with what the guest has said.
fn reported(guest: &Running, what: &str, result: Result<Report, Failure>) -> Result<Report, Failed> {
    let report = result.map_err(|why| guest.failed(&format!("{what}: {why}")))?;
    println!("{}", report.line(what));
    if report.failures.is_empty() && report.done > 0 && report.done == report.planned {
        return Ok(report);
    }
    Err(guest.failed(&format!("{}\n{}", report.line(what), report.failures.join("\n"))))
}

/// Lets the guest go: its program has found nothing wrong either, and the machine is well.
fn end(mut guest: Running, injector: Injector) -> Outcome {
    injector.into_gdb().detach()?;
    guest.send("kill %1\n")?;
    guest.expect("hazard_nmi: ")?;
    let told = guest.expect("\n")?;
    if !told.ends_with(" rounds, 0 wrong\n") {
        // The reason comes in a line of its own.
        let why = guest.expect("hazard_nmi: ").and_then(|_| guest.expect("\n"));
        return Err(guest.failed(&format!("the guest's program: {told}{why:?}")));
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn system_calls_and_timer() -> Outcome {
    let (guest, mut injector) = begin(300)?;
    let wanted = |place: &_| inject::is_system_call_or_timer(place);
    let report = injector.every_address(wanted, || guest.has_said("hazard_nmi: "));
    reported(&guest, "NMI in system calls and timer interrupts", report)?;
    end(guest, injector)
}

#[test]
fn at_every_address() -> Outcome {
    if std::env::var_os("QUIESCE_LONG").is_none() {
        return skip("`make inject` and `make test-long` do it");
    }
    let (guest, mut injector) = begin(1800)?;
    let mut finished = || guest.has_said("hazard_nmi: ");
    let report = injector.every_address(|_| true, &mut finished);
    reported(&guest, "NMI", report)?;
    let in_kernel = injector.until_system_call(&mut finished).and_then(|()| injector.second_at_every_step(false));
    reported(&guest, "second NMI, the first from the kernel,", in_kernel)?;
    let in_user = injector.until_user_mode(&mut finished).and_then(|()| injector.second_at_every_step(false));
    reported(&guest, "second NMI, the first from a program,", in_user)?;
    end(guest, injector)
}

#[test]
fn debug_exception_at_every_access() -> Outcome {
    if std::env::var_os("QUIESCE_LONG").is_none() {
        return skip("`make inject` and `make test-long` do it");
    }
    let (guest, mut injector) = begin(1800)?;
    let report = injector.debug_at_every_access(|| guest.has_said("hazard_nmi: "));
    reported(&guest, "#DB", report)?;
    end(guest, injector)
}
