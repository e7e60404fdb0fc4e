//! Scenario: static programs of other languages run as their compilers made them: C++ with threads, futures and exceptions.

use host::archive::Archive;
use host::image;
use host::tree::Tree;
use scenarios::{Outcome, Vm, compiled, skip};

/// What tests/programs/threads.cpp prints.
const TOLD: &str =
    "queue 2001000\nasync 3199960000\nexception from below\nshared 1000 0\ntimeout 1 1\nlines 1000 0 1\n";

#[test]
fn cpp_threads() -> Outcome {
    let tree = Tree::find(None)?;
    let program = match compiled::program(&tree, "g++", "threads.cpp", &["-O1", "-static", "-pthread"]) {
        Ok(program) => program,
        Err(Ok(why)) => return skip(&why),
        Err(Err(failed)) => return Err(failed),
    };
    let mut archive = Archive::default();
    image::our_files(&tree, &mut archive, |_| false)?;
    archive.program("bin/threads", &program);
    let mut guest = Vm::new().smp(4).cmdline("trace_event= quiet nohz_full=3").initrd(archive.finish()).spawn()?;
    guest.prompt()?;
    for _ in 0..3 {
        let told = guest.command("threads; echo code $?")?;
        assert_eq!(told, format!("{TOLD}code 0\n"));
    }
    // glibc itself asks for more than the program does: robust lists, restartable sequences.
    let missing = guest.command("cat /sys/kernel/quiesce/missing")?;
    let lacks = missing.lines().find(|l| l.contains("program=threads"));
    assert!(lacks.is_none(), "{missing}");
    guest.power_off()?.assert_clean();
    Ok(())
}
