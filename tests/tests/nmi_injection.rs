//! Scenario: an NMI at every instruction of the entry paths, and a second one at every instruction of its own path, while the guest goes
//! through all kinds of entry with known registers. `make inject` shows what is reached and what is not.

use host::gdb::{self, Gdb};
use host::inject::{Injector, Report};
use scenarios::{Failed, Outcome, Vm, skip};

/// The CPU that is tracked and gets the NMIs.
const CPU: u32 = 1;
/// Rounds of the guest's program after which what was not reached counts as never reached.
const ROUNDS: u32 = 500;

fn tell(report: &Report, what: &str) {
    println!("{}", report.line(what));
    assert!(report.failures.is_empty() && report.done > 0, "{}", report.failures.join("\n"));
}

#[test]
fn at_every_address() -> Outcome {
    if std::env::var_os("QUIESCE_LONG").is_none() {
        return skip("`make inject` and `make test-long` do it");
    }
    let name = gdb::socket_name();
    let arguments = gdb::arguments(&name);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let vm = Vm::new().smp(2).cmdline("nohz_full=1 trace_event=irq,ipi,context,syscalls").limit(600);
    let mut guest = vm.qemu_args(&words).spawn()?;
    guest.prompt()?;
    guest.send(&format!("hazard_nmi {CPU} {ROUNDS} &\n"))?;
    guest.expect("hazard_nmi begins")?;
    let mut injector = Injector::new(Gdb::connect(&name)?, guest.kernel(), CPU)?;
    let mut finished = || guest.has_said("hazard_nmi: ");
    let report = injector.every_address(|_| true, &mut finished)?;
    if !report.failures.is_empty() {
        // What the program says of it comes first.
        injector.into_gdb().detach()?;
        guest.send("kill %1; wait %1\n")?;
        let told = guest.expect("hazard_nmi: ").and_then(|_| guest.prompt());
        return Err(Failed(format!("{}\n{}\n{told:?}", report.line("NMI"), report.failures.join("\n"))));
    }
    injector.until_system_call(&mut finished)?;
    let in_kernel = injector.second_at_every_step(false)?;
    injector.until_user_mode(&mut finished)?;
    let in_user = injector.second_at_every_step(false)?;
    injector.into_gdb().detach()?;
    guest.send("kill %1\n")?;
    guest.expect("hazard_nmi: ")?;
    let told = guest.expect("\n")?;
    assert!(told.ends_with(" rounds, 0 wrong\n"), "{told}");
    tell(&report, "NMI");
    tell(&in_kernel, "second NMI, the first from the kernel,");
    tell(&in_user, "second NMI, the first from a program,");
    guest.power_off()?.assert_clean();
    Ok(())
}
