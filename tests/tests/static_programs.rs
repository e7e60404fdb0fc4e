//! Scenario: static programs of other languages run as their compilers made them: C++ with threads, futures and exceptions; Go as Debian
//! packages it, whose runtime brings its own threads, scheduler, signals to preempt goroutines and garbage collector.

use host::archive::Archive;
use host::debian;
use host::failure::{self, Failure};
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

/// Files that the Go programs index and search, and lines in each.
const TEXTS: usize = 60;
const LINES: usize = 2000;

/// Debian's codesearch: small static Go programs. cindex indexes files, csearch searches them by the index, which both map.
#[test]
fn go_goroutines() -> Outcome {
    let tree = Tree::find(None)?;
    // Not among what `make setup` installs: 1 MB for this scenario alone.
    let files = match debian::unpacked(&tree.target.join("debian"), "codesearch", |_| {}) {
        Ok(files) => files,
        Err(Failure::Network(why)) => return skip(&why),
        Err(failed) => return Err(failed.into()),
    };
    let mut archive = Archive::default();
    image::our_files(&tree, &mut archive, |_| false)?;
    for name in ["cindex", "csearch"] {
        archive.program(&format!("bin/{name}"), &failure::read(&files.join("usr/bin").join(name))?);
    }
    archive.directory("texts");
    let line =
        |file: usize, line: usize| format!("line {line} of file {file}, {:x}\n", file * LINES * 7919 + line * 104_729);
    for file in 0..TEXTS {
        let text: String = (0..LINES).map(|number| line(file, number)).collect();
        archive.file(&format!("texts/{file}"), text.as_bytes());
    }
    let root = archive.finish();
    for cpus in [1, 4] {
        let vm = Vm::new().smp(cpus).cmdline("trace_event= quiet CSEARCHINDEX=/tmp/index");
        let mut guest = vm.initrd(root.clone()).spawn()?;
        guest.prompt()?;
        let told = guest.command("cindex /texts; echo code $?")?;
        assert!(told.contains(" done\n") && told.ends_with("code 0\n"), "{cpus} CPUs: {told}");
        // GOGC=1: the collector's threads, one for each CPU, run all the time.
        for environment in ["GOGC=100", "GOGC=1"] {
            let told =
                guest.command(&format!("{environment}; csearch -h 'line 1[0-9]3 of file [34]7, '; echo code $?"))?;
            let wanted: String =
                [37, 47].iter().flat_map(|&f| (103..200).step_by(10).map(move |n| line(f, n))).collect();
            assert_eq!(told, format!("{wanted}code 0\n"), "{cpus} CPUs, {environment}");
        }
        let missing = guest.command("cat /sys/kernel/quiesce/missing")?;
        assert!(!missing.contains("program=cindex") && !missing.contains("program=csearch"), "{missing}");
        guest.power_off()?.assert_clean();
    }
    Ok(())
}
