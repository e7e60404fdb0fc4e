//! Scenario: the kernel boots to the shell's prompt on few and many CPUs, and powers off cleanly.

use scenarios::{Outcome, Vm};

fn boots_and_powers_off(vm: Vm) -> Outcome {
    let mut guest = vm.spawn()?;
    guest.prompt()?;
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn four_cpus() -> Outcome {
    let start = std::time::Instant::now();
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    // For people: no test holds a time. Written past the test runner, which swallows what passes.
    let line = format!("wall time from starting QEMU to the prompt, 4 CPUs: {:.2} s\n", start.elapsed().as_secs_f64());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn one_cpu_in_128_mib() -> Outcome {
    boots_and_powers_off(Vm::new().smp(1).mem("128M"))
}

#[test]
fn two_cpus_by_instruction_count_without_x2apic() -> Outcome {
    boots_and_powers_off(Vm::new().smp(2).icount())
}
