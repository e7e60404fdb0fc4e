//! Scenario: machine checks, which QEMU's monitor injects. One that says which memory a program has lost costs that program a SIGBUS and the
//! page, on an isolated CPU too, where it is in the log of interruptions; one that nobody has to do with costs nothing; one that says that the CPU's context is
//! corrupt, or that comes while the kernel needs the data, ends the kernel with an epitaph that names the bank.

use host::gdb::{self, Gdb};
use host::qemu::End;
use kcore::machine_check::{global, status};
use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};
use std::time::Duration;

/// The CPU that gets them.
const CPU: u32 = 1;
const BANK: u32 = 5;
/// Action required, by the instruction at RIP, and what it needs is known.
const LOST: u64 = status::VALID
    | status::UNCORRECTED
    | status::ENABLED
    | status::MISC_VALID
    | status::ADDRESS_VALID
    | status::SIGNALLED
    | status::ACTION_REQUIRED
    | 0x134; // a data load
const AT_RIP: u64 = global::RIP_VALID | global::ERROR_IP_VALID | global::IN_PROGRESS;
/// A physical address, of a page.
const MISC: u64 = 2 << 6 | 12;

/// A guest at its prompt, and the debugger, which lets it run. One connection for all: QEMU may refuse a second one that comes at once.
fn begin() -> Result<(Running, Gdb), Failed> {
    let name = gdb::socket_name();
    let arguments = gdb::arguments(&name);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1 trace_event=irq,ipi").qemu_args(&words).spawn()?;
    guest.prompt()?;
    let mut gdb = Gdb::connect(&name)?;
    gdb.go_on()?;
    Ok((guest, gdb))
}

/// Starts the program on the CPU; the address of the page that it uses from now on.
fn uses(guest: &mut Running, words: &str) -> Result<u64, Failed> {
    let told = guest.background(&format!("run -c {CPU} hazard_mce {words} &"), "hazard_mce uses 0x")?;
    let page = told.split("hazard_mce uses 0x").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or_default();
    u64::from_str_radix(page, 16).map_err(|e| Failed(format!("{told:?}: {e}")))
}

/// The machine check, as soon as the CPU runs the program (`in_user`) or the kernel. `page`: an address of the program whose frame it is about.
fn inject(gdb: &mut Gdb, in_user: bool, page: Option<u64>, status: u64, mcg_status: u64) -> Result<u64, Failed> {
    gdb.interrupt()?;
    gdb.stopped()?;
    gdb.monitor(&format!("cpu {CPU}"))?;
    // As often as it takes: the guest's time limit ends it.
    while gdb.registers(CPU)?.is_user() != in_user {
        gdb.go_on()?;
        // Time to get somewhere: at once it would stop where it is.
        std::thread::sleep(Duration::from_millis(5));
        gdb.interrupt()?;
        gdb.stopped()?;
    }
    let phys = match page {
        None => 0x1000,
        Some(page) => {
            let told = gdb.monitor(&format!("gva2gpa {page:#x}"))?;
            let word = told.trim().strip_prefix("gpa: 0x").ok_or_else(|| Failed(format!("gva2gpa: {told}")))?;
            u64::from_str_radix(word, 16).map_err(|e| Failed(format!("gva2gpa: {told}: {e}")))?
        }
    };
    let told = gdb.monitor(&format!("mce {CPU} {BANK} {status:#x} {mcg_status:#x} {phys:#x} {MISC:#x}"))?;
    assert_eq!(told.trim(), "", "QEMU does as it is told");
    gdb.go_on()?;
    Ok(phys)
}

#[test]
fn a_program_loses_its_memory() -> Outcome {
    let (mut guest, mut gdb) = begin()?;
    // One that is told.
    let page = uses(&mut guest, "handle")?;
    let phys = inject(&mut gdb, true, Some(page), LOST, AT_RIP)?;
    guest.expect("hazard_mce: SIGBUS with the page's address")?;
    guest.send("wait %1; cat /sys/kernel/quiesce/machine_checks; log\n")?;
    let line = format!("seen=1 cpu={CPU} bank={BANK} status={LOST:#x} address={phys:#x} misc={MISC:#x}");
    guest.expect(&line)?;
    guest.expect(&format!("cpu{CPU} exception 18, "))?;
    guest.prompt()?;
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn the_machine_goes_on() -> Outcome {
    let (mut guest, mut gdb) = begin()?;
    // One that does not listen. Nobody knows its registers if RIP does not count: no handler runs either.
    for (words, mcg_status) in [("", AT_RIP), ("handle", global::IN_PROGRESS)] {
        let page = uses(&mut guest, words)?;
        inject(&mut gdb, true, Some(page), LOST, mcg_status)?;
        guest.expect("machine check")?;
        let told = guest.command("wait %1; echo status $?")?;
        assert!(told.contains("status 135") && !told.contains("hazard_mce: SIGBUS"), "{words}: {told}");
    }
    // One that nothing has used yet.
    let page = uses(&mut guest, "")?;
    inject(&mut gdb, true, Some(page), LOST & !status::ACTION_REQUIRED, AT_RIP)?;
    // A second one before this one has been dealt with would shut the CPU down.
    while !guest.command("cat /sys/kernel/quiesce/machine_checks")?.contains("seen=3 ") {}
    // Another CPU's: this one goes on, and its program notices nothing. The last, because its bank stays for that CPU.
    inject(&mut gdb, true, Some(page), LOST, global::RIP_VALID | global::IN_PROGRESS)?;
    while !guest.command("cat /sys/kernel/quiesce/machine_checks")?.contains("seen=4 ") {}
    let told = guest.command("kill %1; wait %1; echo status $?")?;
    assert!(told.contains("status 143"), "{told}");
    let told = guest.command(&format!("run -c {CPU} echo still here"))?;
    assert_eq!(told.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// The guest ends, and says why.
fn ends(in_user: bool, status: u64, mcg_status: u64, why: &str) -> Outcome {
    let (mut guest, mut gdb) = begin()?;
    let page = if in_user { Some(uses(&mut guest, "handle")?) } else { None };
    inject(&mut gdb, in_user, page, status, mcg_status)?;
    let finished = guest.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    let said = &finished.output;
    assert!(said.contains(&format!("kernel panic: machine check: {why} (MCG_STATUS {mcg_status:#x})")), "{said}");
    assert!(said.contains(&format!("bank {BANK} status {status:#018x} address 0x")), "{said}");
    assert!(said.contains(&format!("cpu {CPU} context word ")) && said.contains("end of epitaph"), "{said}");
    Ok(())
}

#[test]
fn a_corrupt_context_is_the_end() -> Outcome {
    ends(true, LOST | status::CONTEXT_CORRUPT, AT_RIP, "the processor's context is corrupt")
}

#[test]
fn what_the_kernel_needs_is_the_end() -> Outcome {
    ends(false, LOST, AT_RIP, "the kernel's own access failed")
}
