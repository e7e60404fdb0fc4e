//! Scenario: the kernel's own watchpoints. What entry code needs before it can take a #DB is refused; one on other memory that it touches is
//! hit, told and survived, on a tracked CPU too: the table of system calls, the registers that every entry saves on the task's kernel
//! stack, the task, its FPU state, the scheduler of the CPU. So is a breakpoint in the kernel's text.

use host::symbolize::address_of;
use scenarios::{Failed, Outcome, Vm};

const FILE: &str = "/sys/kernel/quiesce/watch";
/// Where entry code reads what it calls.
const TABLE: &str = "kernel::syscall::table::TABLE";
/// The function of getppid(2).
const GETPPID: &str = "kernel::syscall::process::getppid";
/// getpid(2), which `calls` begins with.
const NUMBER: u64 = 39;

#[test]
fn entry_memory_is_refused_and_other_memory_survived() -> Outcome {
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1").spawn()?;
    guest.prompt()?;
    let kernel = guest.kernel().to_path_buf();
    let symbol = |name: &str| address_of(&kernel, name);
    let (text, text_end) = (symbol("__entry_text_start")?, symbol("__entry_text_end")?);
    // The head is the first in a CPU's area, and the word has its second cache line.
    let head = symbol("kernel::percpu::BOOT")?;
    let idt = symbol("kernel::arch::idt::IDT")?;
    let watched = symbol(TABLE)? + 8 * NUMBER;
    let refused = [
        ("the first byte of entry text", text, 1),
        ("its last bytes", (text_end - 1) & !7, 8),
        ("the first gate", idt, 8),
        ("the last gate", idt + 4088, 8),
        ("the boot CPU's head", head, 8),
        ("its context word", head + 64, 8),
        ("an address that is not aligned", watched + 1, 8),
        ("a program's memory", 0x1000, 8),
    ];
    for (what, address, len) in refused {
        for kind in ["w", "rw"] {
            let told = guest.command(&format!("echo '{address:#x} {len} {kind}' > {FILE}"))?;
            assert!(told.contains("Invalid argument"), "{what}, {kind}: {told:?}");
        }
    }
    // The stacks of NMI, #DF, #DB and #MC: the word at their top, the frame below it, and one in their middle.
    let stacks =
        ["ist1", "ist2", "ist3", "ist4"].map(|ist| ["", "-8", "-56", "-2048"].map(|at| format!("{ist}:1{at}")));
    let tables = ["tss:0", "tss:1+0x60", "gdt:0+0x10", "gdt:1+0x48"].map(String::from);
    let breakpoints = [
        format!("{:#x}", symbol("kernel::entry::syscall::syscall_entry")?),
        format!("{:#x}", symbol("kernel::entry::nmi::nmi_entry")? + 2),
        // No text.
        format!("{idt:#x}"),
        format!("{watched:#x}"),
    ];
    let watchpoints = stacks.as_flattened().iter().chain(&tables).map(|place| format!("{place} 8 rw"));
    for request in watchpoints.chain(breakpoints.iter().map(|place| format!("{place} 1 x"))) {
        let told = guest.command(&format!("echo '{request}' > {FILE}"))?;
        assert!(told.contains("Invalid argument"), "{request}: {told:?}");
    }
    assert_eq!(guest.command(&format!("cat {FILE}"))?, "", "what is refused is not set");
    let line = |told: &str, key: &str| {
        let word = told.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap_or("none");
        word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
    };
    let told = guest.command(&format!("echo '{watched:#x} 8 rw' > {FILE}"))?;
    assert_eq!(told, "", "not entry memory: it is taken");
    for cpu in [0, 1] {
        let before = line(&guest.command(&format!("cat {FILE}"))?, "hits=");
        let told = guest.command(&format!("run -c {cpu} calls fault_trap"))?;
        assert!(told.contains("passed") && !told.contains("FAILED"), "{told}");
        let after = guest.command(&format!("cat {FILE}"))?;
        assert!(line(&after, "hits=") > before, "CPU {cpu}: {before:?}, then {after}");
        // Behind the access: in kernel text.
        assert!(line(&after, "rip=").is_some_and(|rip| rip >= text), "{after}");
    }
    assert_eq!(guest.command(&format!("echo '{watched:#x} off' > {FILE}"))?, "");
    // A breakpoint: the instruction runs after all, and who came to it is told.
    let getppid = symbol(GETPPID)?;
    assert_eq!(guest.command(&format!("echo '{getppid:#x} 1 x' > {FILE}"))?, "");
    let told = guest.command("hazard_nmi 1 1")?;
    assert!(told.contains("hazard_nmi: 1 rounds, 0 wrong"), "{told}");
    let told = guest.command(&format!("cat {FILE}"))?;
    assert!(line(&told, "hits=") > Some(0) && line(&told, "rip=") == Some(getppid), "{told}");
    assert!(told.contains(" kind=x ") && told.contains(&format!(" backtrace={getppid:#x}")), "{told}");
    assert_eq!(guest.command(&format!("echo '{getppid:#x} off' > {FILE}"))?, "");
    assert_eq!(guest.command(&format!("cat {FILE}"))?, "");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// Every kind of entry from user mode, and NMIs at any time, with watchpoints on what entry code touches.
fn survived(cmdline: &str) -> Result<(), Failed> {
    const ROUNDS: u32 = 10;
    let mut guest = Vm::new().smp(2).cmdline(cmdline).spawn()?;
    guest.prompt()?;
    // Where each entry from user mode saves RDI. Hardware writes only above, its frame and error codes, where a watchpoint ends QEMU 10
    // (it takes a lock that it holds while it delivers an exception). RDI is saved when the frame has been copied: that DR7 is off before
    // that is not seen here.
    let places = ["stack:self-56", "task:self", "fpu:self+0x200", "sched:1"];
    let told = guest.command(&format!("hazard_nmi 1 {ROUNDS} {}", places.join(" ")))?;
    assert!(told.contains(&format!("hazard_nmi: {ROUNDS} rounds, 0 wrong")), "{told}");
    let watched: Vec<&str> = told.lines().filter(|l| l.starts_with("watched: ")).collect();
    assert_eq!(watched.len(), places.len(), "{told}");
    let hits = |line: &str| line.split_whitespace().find_map(|w| w.strip_prefix("hits=")).and_then(|n| n.parse().ok());
    for line in &watched {
        assert!(hits(line) > Some(0u64), "never touched: {line}");
        println!("{line}");
    }
    // The stack, the first of them, which takes the highest register and so the last line: at least one hit for each exception and system call.
    let stack = watched.last().and_then(|line| hits(line));
    assert!(stack > Some(u64::from(ROUNDS) * 20), "{told}");
    assert!(
        guest.command("cat /sys/kernel/quiesce/cpu1/entries")?.lines().any(|l| l.starts_with("nmi ") && l != "nmi 0")
    );
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn what_entry_code_touches_may_be_watched() -> Outcome {
    survived("trace_event=")
}

#[test]
fn on_a_tracked_cpu_too() -> Outcome {
    survived("nohz_full=1")
}
