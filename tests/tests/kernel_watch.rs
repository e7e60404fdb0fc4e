//! Scenario: the kernel's own watchpoints. What entry code needs before it can take a #DB is refused; a watchpoint on other memory that it
//! reads, the table of system calls, is hit, told and survived, on a tracked CPU too.

use host::symbolize::address_of;
use scenarios::{Outcome, Vm};

const FILE: &str = "/sys/kernel/quiesce/watch";
/// Where entry code reads what it calls.
const TABLE: &str = "kernel::syscall::table::TABLE";
/// getpid(2), which `calls` begins with.
const NUMBER: u64 = 39;

#[test]
fn entry_memory_is_refused_and_other_memory_survived() -> Outcome {
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1").spawn()?;
    guest.prompt()?;
    let symbol = |name: &str| address_of(guest.kernel(), name);
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
    assert_eq!(guest.command(&format!("cat {FILE}"))?, "");
    guest.power_off()?.assert_clean();
    Ok(())
}
