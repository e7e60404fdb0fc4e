//! Scenario: Debian's own dynamic programs run as they are: bash, python3, ld.so started by hand, strace, gdb with gdbserver, and the
//! rt-tests, which end with their normal summary. Skipped where the packages are neither installed nor to be had from apt.

use host::debian_closure;
use host::debian_root;
use host::tree::Tree;
use scenarios::{Failed, Outcome, Vm, compiled, skip};

/// What bash is given to run.
const WORDS: &str = "tmp/words";

/// Runs `words` by Debian's bash on a machine of two CPUs; gives what it prints. None: there are no packages.
fn run(packages: &[&str], programs: &[(&str, &[u8])], words: &str, cmdline: &str) -> Result<Option<String>, Failed> {
    run_on(Vm::new().smp(2).limit(300), packages, programs, words, cmdline)
}

/// The same on a machine of this kind.
fn run_on(
    vm: Vm,
    packages: &[&str],
    programs: &[(&str, &[u8])],
    words: &str,
    cmdline: &str,
) -> Result<Option<String>, Failed> {
    let tree = Tree::find(None)?;
    let programs = [programs, &[(WORDS, words.as_bytes())]].concat();
    let root = match debian_root::root_file_system(&tree, packages, &programs, |_| {}) {
        Ok(root) => root,
        Err(why) => {
            skip(&why.to_string())?;
            return Ok(None);
        }
    };
    // Nothing is typed: by the clock of instructions a run is the same each time then.
    let vm = vm.mem("1G").cmdline(&format!("trace_event= quiet {cmdline} -- . /{WORDS}"));
    let finished = vm.initrd(root).spawn()?.finish()?;
    finished.assert_clean();
    Ok(Some(finished.output))
}

fn assert_has(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

/// The words come in this order, each behind the one before.
fn assert_in_order(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for word in wanted {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} does not come in its place in {text}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn bash_and_python_run_with_their_libraries() -> Outcome {
    let words = "x=(1 2 3); echo bash ${#x[@]} $((6 * 7)); python3 -c 'print(\"python\", 6 * 7)'; \
        /lib64/ld-linux-x86-64.so.2 --list /bin/bash; missing";
    let Some(text) = run(&["python3-minimal"], &[], words, "")? else { return Ok(()) };
    assert_has(&text, &["bash 3 42\n", "\npython 42\n", "libtinfo.so.6 => /lib/x86_64-linux-gnu/libtinfo.so.6"]);
    Ok(())
}

/// script(1) runs its command on a terminal of its own, and keeps what that shows.
#[test]
fn script_plays_the_terminal() -> Outcome {
    let words = "script -qec 'tty; stty size; stty rows 31 cols 77; stty size; echo end' /tmp/log; echo code $?; cat /tmp/log; missing";
    let Some(text) = run(&["bsdutils", "coreutils"], &[], words, "")? else { return Ok(()) };
    assert_in_order(&text, &["/dev/pts/0\n", "31 77\n", "end\n", "code 0\n", "/dev/pts/0\n", "31 77\n", "end\n"]);
    Ok(())
}

#[test]
fn strace_tells_what_programs_do() -> Outcome {
    let words = "strace -f -s 99 -o /tmp/log bash -c 'bash -c \"echo in; exit 4\"; exit 3'; echo code $?; grep -v mmap /tmp/log; \
        strace -c -f -o /tmp/sum bash -c 'for i in 1 2 3; do (exit $i); done'; cat /tmp/sum; \
        strace -e trace=kill,exit_group bash -c 'kill -TERM $$' 2>&1; mkfifo /tmp/fifo; \
        bash -c 'echo up > /tmp/up; read x < /tmp/fifo; exit 5' & until [ -s /tmp/up ]; do :; done; \
        strace -f -p $! -o /tmp/att & until [ -s /tmp/att ]; do read -t 0.05 y < /dev/zero; done; echo go > /tmp/fifo; wait; cat /tmp/att";
    let Some(text) = run(&["strace", "grep", "coreutils"], &[], words, "")? else { return Ok(()) };
    assert_in_order(
        &text,
        &[
            "in\n",
            "code 3\n",
            "execve(\"/usr/bin/bash\", [\"bash\", \"-c\", \"bash -c \\\"echo in; exit 4\\\"; exit 3\"], 0x",
            ") = 0\n",
            "openat(AT_FDCWD, \"/lib/x86_64-linux-gnu/libc.so.6\", O_RDONLY|O_CLOEXEC) = 3\n",
            "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD",
            "execve(\"/usr/bin/bash\", [\"bash\", \"-c\", \"echo in; exit 4\"], 0x",
            "write(1, \"in\\n\", 3",
            "exit_group(4)",
            "+++ exited with 4 +++\n",
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=",
            "si_status=4",
            "exit_group(3) ",
            "= ?\n",
            "+++ exited with 3 +++\n",
            "% time     seconds  usecs/call     calls    errors syscall\n",
            " total\n",
            "kill(",
            ", SIGTERM)",
            "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=",
            "+++ killed by SIGTERM +++\n",
            "read(0, \"g\", 1) ",
            "+++ exited with 5 +++\n",
        ],
    );
    Ok(())
}

#[test]
fn gdb_debugs_by_way_of_gdbserver_and_itself() -> Outcome {
    let tree = Tree::find(None)?;
    let program = match compiled::program(&tree, "gcc", "debugged.c", &["-g", "-O0", "-pie", "-pthread"]) {
        Ok(program) => program,
        Err(Ok(why)) => return skip(&why),
        Err(Err(failed)) => return Err(failed),
    };
    let gdb = if debian_closure::is_installed("gdb") { "gdb" } else { "gdb-minimal" };
    let remote = "target remote | gdbserver --once - /tmp/debugged\nbreak work\ncontinue\nbacktrace\nnext\np counter\n\
        info registers rip\nstepi\nwatch counter\ndelete 1\ncontinue\ninfo threads\nset var counter = 100\n\
        continue\np $_siginfo.si_signo\ncontinue\n";
    let own = "set startup-with-shell off\nbreak main\nrun\nhbreak second\ncontinue\ninfo threads\np argument\nfinish\ncatch syscall exit_group\ncontinue\n\
        p $rdi\ncontinue\n";
    let programs =
        [("tmp/debugged", program.as_slice()), ("tmp/remote.gdb", remote.as_bytes()), ("tmp/own.gdb", own.as_bytes())];
    let words = "gdb -q -nx -batch -x /tmp/remote.gdb /tmp/debugged 2>&1; gdb -q -nx -batch -x /tmp/own.gdb /tmp/debugged 2>&1; missing";
    let Some(text) = run(&[gdb, "gdbserver"], &programs, words, "nohz_full=1")? else { return Ok(()) };
    assert!(!text.contains("Error in sourced") && !text.contains("Error disabling"), "{text}");
    assert_in_order(
        &text,
        &[
            "Breakpoint 1 at 0x5555555",
            "Breakpoint 1, work (value=2) at ",
            "#1  0x000055555555",
            " in main () at ",
            "$1 = 42\n",
            " <work+",
            "Hardware watchpoint 2: counter\n",
            "Thread 2 \"debugged\" hit Hardware watchpoint 2: counter\n\nOld value = 42\nNew value = 45\nwork (value=3) at ",
            "* 2 ",
            "Thread 1 \"debugged\" hit Hardware watchpoint 2: counter\n\nOld value = 100\nNew value = 62\n",
            "$2 = 5\n",
            "first 42\nsecond 101\n",
            "exited with code 076]",
            "Breakpoint 1, main () at ",
            "Thread 2 \"debugged\" hit Breakpoint 2, second (argument=0x3) at ",
            "* 2 ",
            "$1 = (void *) 0x3\n",
            "Value returned is $2 = (void *) 0x2e\n",
            "hit Catchpoint 3 (call to syscall exit_group), ",
            "$3 = 7\n",
            "exited with code 07]",
        ],
    );
    Ok(())
}

#[test]
fn restartable_sequences_start_anew() -> Outcome {
    let tree = Tree::find(None)?;
    let program = match compiled::program(&tree, "gcc", "restartable.c", &["-O2", "-pthread"]) {
        Ok(program) => program,
        Err(Ok(why)) => return skip(&why),
        Err(Err(failed)) => return Err(failed),
    };
    // The C library's own registration is the bash that starts it.
    let words = "GLIBC_TUNABLES=glibc.pthread.rseq=0 /tmp/restartable; missing";
    let Some(text) = run(&[], &[("tmp/restartable", &program)], words, "nohz_full=1")? else { return Ok(()) };
    assert!(text.contains("restartable: 0 failed\n") && !text.contains(" rseq"), "{text}");
    Ok(())
}

#[test]
fn rt_tests_end_with_their_summary() -> Outcome {
    let words = "cyclictest -D 1 -q -t 1 -a 1 -p 80; oslat -q -c 1 -D 1; ptsematest -l 200 -q -t 1; signaltest -l 200 -q; \
        hackbench -l 10 -g 1; hackbench -p -l 10 -g 1; missing";
    let Some(text) = run(&["rt-tests"], &[], words, "nohz_full=1")? else { return Ok(()) };
    println!("{text}");
    assert_has(
        &text,
        &["T: 0 (", " P:80 I:1000 C:", "#1 -> #0, Min", " C:    200 Min:", "     Maximum:\t", " (us)\n    Duration:\t"],
    );
    assert_eq!(text.matches("\nTime: ").count(), 2, "{text}");
    Ok(())
}

/// Two threads of cyclictest, each bound to an isolated CPU of its own. /proc says where they may run while they do.
#[test]
fn rt_tests_threads_on_isolated_cpus() -> Outcome {
    let words = "cyclictest -D 2 -q -m -t 2 -a 2,3 -p 80 & c=$!; \
        bound() { for s in /proc/$c/task/*/status; do while read k v; do [ $k = Cpus_allowed_list: ] && echo bound $v; done < $s; done; }; \
        until t=$(bound 2> /dev/null); case $t in *'bound 2'*'bound 3'*) true;; *) ! kill -0 $c;; esac; do :; done; echo \"$t\"; wait; \
        oslat -q -c 2,3 -D 1; missing";
    let Some(text) = run_on(Vm::new().limit(300), &["rt-tests"], &[], words, "nohz_full=2,3")? else { return Ok(()) };
    println!("{text}");
    assert_in_order(
        &text,
        &[
            "bound 2\n",
            "bound 3\n",
            "T: 0 (",
            " P:80 I:1000 C:",
            "T: 1 (",
            " P:80 I:1500 C:",
            "Core:\t 2 3",
            "Maximum:\t",
        ],
    );
    for thread in text.split("\nT: ").skip(1) {
        assert!(number_behind(thread, " C:")? >= 10, "{text}");
    }
    Ok(())
}

/// By a clock that counts instructions: pi_stress takes a group that gets nothing done in most of a second for a deadlock, and on a busy host
/// that is no proof of one.
#[test]
fn rt_tests_priority_inheritance() -> Outcome {
    let words = "pi_stress -q -g 1 -i 50";
    let Some(text) = run_on(Vm::new().smp(2).limit(300).icount(), &["rt-tests"], &[], words, "nohz_full=1")? else {
        return Ok(());
    };
    println!("{text}");
    let inversions = number_behind(&text, "Total inversion performed: ")?;
    assert!(inversions >= 50 && text.contains("\nTest Duration: 0 days,"), "{text}");
    Ok(())
}

/// The number that follows the first `label`.
fn number_behind(text: &str, label: &str) -> Result<u64, Failed> {
    let digits: Option<String> =
        text.split(label).nth(1).map(|rest| rest.trim_start().chars().take_while(char::is_ascii_digit).collect());
    digits.and_then(|d| d.parse().ok()).ok_or_else(|| Failed(format!("no number behind {label:?} in {text}")))
}

/// cyclictest's latencies on an isolated CPU, by a clock that counts instructions: the longest is held. All its threads are there: the CPUs take
/// turns, so what CPU 0 executes while a timer is due would count as latency.
#[test]
fn rt_tests_latency_by_the_instruction_clock() -> Outcome {
    /// Nanoseconds; reached: 557. The program's two threads share the CPU, and a timer of the one may come while the kernel works for the other:
    /// nothing is random here, but a few instructions more or less on any path move the one against the other. What that costs at most is
    /// `nanosleep_beside_fifo80.max` of `make bench`.
    const LONGEST_NS: u64 = 750;
    let words = "run -c 1 cyclictest -D 1 -q -m -N -t 1 -a 1 -p 80";
    let Some(text) = run_on(Vm::new().smp(2).limit(300).icount(), &["rt-tests"], &[], words, "nohz_full=1")? else {
        return Ok(());
    };
    println!("{text}");
    let (cycles, longest) = (number_behind(&text, " C:")?, number_behind(&text, " Max:")?);
    assert!(cycles >= 900, "{text}");
    assert!(longest <= LONGEST_NS, "cyclictest's longest latency is {longest} ns, more than {LONGEST_NS}: {text}");
    Ok(())
}
