//! Scenario: Debian's own dynamic programs run as they are: bash, python3, ld.so started by hand, and the rt-tests, which end with their
//! normal summary. Skipped where the packages are neither installed nor to be had from apt.

use host::debian_root;
use host::tree::Tree;
use scenarios::{Failed, Outcome, Vm};

/// Runs `words` by Debian's bash on a machine of two CPUs; gives what it prints. None: there are no packages.
fn run(packages: &[&str], words: &str, cmdline: &str) -> Result<Option<String>, Failed> {
    let tree = Tree::find(None)?;
    let base = ["bash", "libtinfo6", "libc6"];
    let packages: Vec<&str> = base.iter().chain(packages).copied().collect();
    let root = match debian_root::root_file_system(&tree, &packages, |_| {}) {
        Ok(root) => root,
        Err(why) => {
            println!("SKIPPED: {why}");
            return Ok(None);
        }
    };
    let mut guest =
        Vm::new().smp(2).limit(300).cmdline(&format!("trace_event= quiet {cmdline}")).initrd(root).spawn()?;
    guest.expect("# ")?;
    guest.send(&format!("{words}; exit\n"))?;
    let finished = guest.finish()?;
    finished.assert_clean();
    Ok(Some(finished.output))
}

fn assert_has(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn bash_and_python_run_with_their_libraries() -> Outcome {
    let python = ["python3-minimal", "python3.11-minimal", "libpython3.11-minimal", "libexpat1", "zlib1g"];
    let words = "x=(1 2 3); echo bash ${#x[@]} $((6 * 7)); python3 -c 'print(\"python\", 6 * 7)'; \
        /lib64/ld-linux-x86-64.so.2 --list /bin/bash; missing";
    let Some(text) = run(&python, words, "")? else { return Ok(()) };
    assert_has(&text, &["\nbash 3 42\n", "\npython 42\n", "libtinfo.so.6 => /lib/x86_64-linux-gnu/libtinfo.so.6"]);
    Ok(())
}

#[test]
fn rt_tests_end_with_their_summary() -> Outcome {
    let words = "cyclictest -D 1 -q -t 1 -a 1 -p 80; ptsematest -l 200 -q -t 1; signaltest -l 200 -q; hackbench -l 10 -g 1; \
        hackbench -p -l 10 -g 1; missing";
    let Some(text) = run(&["rt-tests", "libnuma1"], words, "nohz_full=1")? else { return Ok(()) };
    println!("{text}");
    assert_has(&text, &["T: 0 (", " P:80 I:1000 C:", "#1 -> #0, Min", " C:    200 Min:"]);
    assert_eq!(text.matches("\nTime: ").count(), 2, "{text}");
    Ok(())
}
