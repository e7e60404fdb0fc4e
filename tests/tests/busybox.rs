//! Scenario: Debian's busybox-static as the shell of our root file system, driven through a terminal as a person does: editing, pipes,
//! background jobs, Ctrl-C, Ctrl-Z, an editor, and the programs that look at the machine. Skipped where the package is neither installed
//! nor to be had from apt.

use host::busybox;
use host::tree::Tree;
use scenarios::program::Program;
use scenarios::run_smp::{Run, VARIABLES};
use scenarios::{Failed, Outcome, skip};
use std::process::Command;

/// What ash prints when it waits for a line, after its question for the cursor's place, which nobody answers.
const PROMPT: &str = "ash> ";

/// The runner on a terminal of its own, with busybox for a shell, at its first prompt. None: there is no busybox.
fn start() -> Result<Option<Program>, Failed> {
    let tree = Tree::find(None)?;
    if let Err(why) = busybox::find(&tree, |_| {}) {
        skip(&why.to_string())?;
        return Ok(None);
    }
    let mut command = Command::new(tree.root.join("tools/run-smp"));
    for name in VARIABLES {
        command.env_remove(name);
    }
    let profile = std::env::var("PROFILE").unwrap_or_default();
    command.envs([
        ("SHELL_PROGRAM", "busybox"),
        ("LOADER", "direct"),
        ("ACCEL", "tcg"),
        ("SMP", "2"),
        ("TIMEOUT", "300"),
        ("PROFILE", &profile),
        ("CMDLINE", "trace_event= quiet nohz_full=1"),
    ]);
    let mut shell = Program::on_terminal(command)?;
    shell.expect("built-in shell (ash)")?;
    shell.expect("# ")?;
    // The prompt as a line that the echo of the command cannot be taken for.
    shell.send("PS1='a''sh> '\n");
    shell.expect(PROMPT)?;
    Ok(Some(shell))
}

/// Types a line; gives what comes until the next prompt.
fn command(shell: &mut Program, line: &str) -> Result<String, Failed> {
    shell.send(&format!("{line}\n"));
    shell.expect(PROMPT)
}

fn finish(shell: Program) -> Result<Run, Failed> {
    let mut shell = shell;
    shell.send("poweroff\n");
    let run = shell.finish()?;
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    Ok(run)
}

fn assert_has(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn ash_edits_lines_and_controls_jobs() -> Outcome {
    let Some(mut shell) = start()? else { return Ok(()) };
    let sh = &mut shell;
    // Two to the left, and the 7 goes in; Home, End, more; and the line before by the arrow. The shell takes an escape that nothing follows
    // for 50 ms for a key of its own, and on a machine that has much to do the rest of a key may come later: then another time.
    // While a line is edited the prompt is shown again and again: each line tells its own end.
    let typed = |sh: &mut Program, line: &str, end: &str| -> Result<String, Failed> {
        sh.send(line);
        let told = sh.expect(&format!("\n{end}\r"))?;
        sh.expect(PROMPT)?;
        Ok(told)
    };
    let edited = |sh: &mut Program| -> Result<bool, Failed> {
        // Whatever comes of a key, the word that ends the line is a command of its own.
        let first = typed(sh, "echo 12\x1b[D\x1b[D7\x1b[H\x1b[F two; echo e''nd; \n", "end")?;
        let second = typed(sh, "\x1b[Aecho three; echo e''nd again; \n", "end again")?;
        Ok(first.contains("\n712 two\n") && second.contains("\n712 two\nend\nthree\n"))
    };
    let times = (0..20).find_map(|_| edited(sh).map(|good| good.then_some(())).transpose());
    times.ok_or_else(|| Failed("edited lines did not become what they should, 20 times".into()))??;
    assert_has(&command(sh, "echo $((6*7))")?, &["\n42\n"]);
    assert_has(
        &command(sh, "seq 1 20000 | sort -rn | head -n 1 | tee /tmp/seen; cat /tmp/seen")?,
        &["\n20000\n20000\n"],
    );
    // Ctrl-C ends the foreground job, not the one in the background.
    command(sh, "sleep 1000 &")?;
    sh.send("sh -c 'echo wait''ing; exec sleep 1000'\n");
    sh.expect("waiting")?;
    sh.send("\x03");
    sh.expect(PROMPT)?;
    // Ctrl-Z stops, fg goes on with it.
    sh.send("sh -c 'echo wait''ing; read word; echo got $word'\n");
    sh.expect("waiting")?;
    sh.send("\x1a");
    sh.expect(PROMPT)?;
    let jobs = command(sh, "jobs")?;
    assert_has(&jobs, &["Running", "sleep 1000", "Stopped", "read word"]);
    sh.send("fg %2\n");
    sh.expect("read word")?;
    sh.send("text\n");
    sh.expect("got text")?;
    sh.expect(PROMPT)?;
    assert_has(&command(sh, "kill %1; wait; jobs; echo code $?")?, &["Terminated", "code 0"]);
    // The editor writes what was typed into it.
    sh.send("vi /tmp/note\n");
    sh.expect("1/1 100%")?;
    sh.send("iedited here");
    // Where the cursor is behind all of it; the text itself may come in pieces.
    sh.expect("\x1b[1;12H")?;
    // Alone: with more behind it at once it would be the start of a key's sequence.
    sh.send("\x1b");
    sh.expect("[Modified]")?;
    sh.send(":wq\n");
    sh.expect(PROMPT)?;
    assert_has(&command(sh, "cat /tmp/note")?, &["\nedited here\n"]);
    finish(shell).map(drop)
}

#[test]
fn its_programs_see_the_machine() -> Outcome {
    let Some(mut shell) = start()? else { return Ok(()) };
    let sh = &mut shell;
    assert_has(&command(sh, "uname -srm")?, &["Linux 6.1.0-quiesce x86_64"]);
    assert_has(&command(sh, "ps")?, &["PID", "[rcu_gp]", "/init"]);
    assert_has(&command(sh, "top -b -n 1 | head -n 7")?, &["Mem:", "CPU:", "Load average:"]);
    // As it comes: it takes the screen, shows itself anew, and ends by a key.
    sh.send("top -d 1\n");
    for _ in 0..2 {
        sh.expect("Load average:")?;
        sh.expect("top -d 1")?;
    }
    sh.send("q");
    sh.expect(PROMPT)?;
    assert_has(&command(sh, "dmesg | grep -c 'Run /init'")?, &["\n1\n"]);
    assert_has(
        &command(sh, "mkdir /mnt; mount -t tmpfs none /mnt && mount | grep /mnt; umount /mnt")?,
        &["tmpfs on /mnt"],
    );
    assert_has(&command(sh, "taskset -p $$; taskset 2 sh -c 'taskset -p $$'")?, &["mask: 1\n", "mask: 2\n"]);
    let work = "tar c /etc | gzip | tee /tmp/etc.tar.gz | wc -c; zcat /tmp/etc.tar.gz | tar t; find /etc -name 'p*' | sort | xargs";
    assert_has(&command(sh, work)?, &["etc/passwd\n", "/etc/passwd /etc/profile\n"]);
    assert_has(
        &command(sh, "hostname still; hostname; sync; df | head -n 1; free | grep Mem")?,
        &["\nstill\n", "Mem:"],
    );
    // A script by its first line, and a program by way of it.
    command(sh, "printf '#!/bin/awk -f\\nBEGIN { print 6 * 7 }\\n' > /tmp/answer; chmod +x /tmp/answer")?;
    assert_has(&command(sh, "/tmp/answer")?, &["\n42\n"]);
    // What is not there is counted and named.
    command(sh, "unshare -n true; unshare -n true")?;
    let missing = command(sh, "missing; grep unshare /sys/kernel/quiesce/missing")?;
    assert_has(&missing, &[" unshare ", "call=unshare number=272 count=2 program=unshare\n"]);
    finish(shell).map(drop)
}
