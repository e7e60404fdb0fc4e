//! The shell with the other programs, run on the host as on the kernel.

mod image;

use image::{Ended, Image};

fn sh(line: &str) -> Ended {
    Image::new().run(&["sh", "-c", line])
}

#[track_caller]
fn check(line: &str, status: i32, out: &str, err: &str) {
    let got = sh(line);
    assert_eq!((got.status, got.out.as_str(), got.err.as_str()), (Some(status), out, err), "{line}");
}

#[test]
fn statuses_and_lists() {
    check("true; echo $?; false; echo $?; false || echo or && echo and; false && echo never", 1, "0\n1\nor\nand\n", "");
    check("exit 7; echo never", 7, "", "");
    check("sh -c 'exit 300'", 1, "", "exit: not a status (0 to 255): \"300\"\n");
}

#[test]
fn words_and_variables() {
    check("x='a b'; echo \"$x\" '$x' \\$x ${x}c $unset\"\"", 0, "a b $x $x a bc \n", "");
    check("echo # a comment", 0, "\n", "");
}

#[test]
fn pipes_and_files() {
    check("echo one > f; echo two >> f; cat < f | cat | cat", 0, "one\ntwo\n", "");
    check("ls /nonsense 2> err; cat err", 0, "ls: /nonsense: No such file or directory\n", "");
    check("ls /nonsense 2>&1 | cat", 0, "ls: /nonsense: No such file or directory\n", "");
    check("cat < /nonsense; echo $?", 0, "1\n", "sh: /nonsense: No such file or directory\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    check("cat /dev/zero | true", 0, "", "");
    check("cat /dev/zero | sh -c 'exec 3'; echo $?", 0, "127\n", "sh: 3: command not found (try: help)\n");
}

#[test]
fn exec_becomes_the_program() {
    check("exec echo one; echo never", 0, "one\n", "");
    check("sh -c 'exec /nonsense; echo never'; echo $?", 0, "127\n", "sh: /nonsense: No such file or directory\n");
    check("sh -c 'exec; echo on'", 0, "on\n", "exec: usage: exec PROGRAM [WORD…]\n");
}

#[test]
fn unknown_commands_and_broken_lines() {
    check("nonsense; echo $?", 0, "127\n", "sh: nonsense: command not found (try: help)\n");
    check("/nonsense; echo $?", 0, "127\n", "sh: /nonsense: No such file or directory\n");
    check("/; echo $?", 0, "126\n", "sh: /: Permission denied\n");
    check("echo 'x", 2, "", "sh: unterminated '\n");
    check("| cat", 2, "", "sh: syntax error near |\n");
}

#[test]
fn a_killed_program_is_named() {
    check("sh -c 'kill -SEGV $$'; echo $?", 0, "139\n", "sh: sh -c 'kill -SEGV $$': killed by SIGSEGV\n");
    check("sh -c 'kill -INT $$'; echo $?", 0, "130\n", "");
    check(
        "kill -NONSENSE 1; kill x; kill %4",
        1,
        "",
        "kill: no signal \"NONSENSE\"\nkill: not a process number: \"x\"\nkill: no job %4\n",
    );
}

#[test]
fn background_jobs_in_a_session() {
    // A job and its wait are on one line: a prompt between them may tell the end first and forget the job.
    let got = Image::new()
        .run_with(&["sh", "-i"], "true & wait\nspin & kill %1; wait %1; echo $?\nfalse & wait %1\nexit 3\n");
    let pid = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().is_ok();
    let lines: Vec<_> = got.out.lines().map(|line| line.trim_start_matches("quiesce# ")).collect();
    assert_eq!((got.status, got.err.as_str()), (Some(3), ""), "{lines:?}");
    assert!(lines[0].starts_with("[1] ") && pid(lines[0]), "{lines:?}");
    assert!(lines.contains(&"[1] done    true"), "{lines:?}");
    assert!(lines.contains(&"[1] killed by SIGTERM    spin"), "{lines:?}");
    assert!(lines.contains(&"143"), "{lines:?}");
    assert!(lines.contains(&"[1] exit 1    false"), "{lines:?}");
}

#[test]
fn lines_from_a_pipe_are_left_to_the_programs() {
    let got = Image::new().run_with(&["sh"], "echo a\ncat\necho b\n");
    assert_eq!((got.status, got.out.as_str()), (Some(0), "a\necho b\n"));
}

#[test]
fn scripts() {
    let image = Image::new();
    image.file("/script", "# a script\necho 1\nsh -c 'exit 4'\necho $?");
    let got = image.run(&["sh", "script"]);
    assert_eq!((got.status, got.out.as_str()), (Some(0), "1\n4\n"));
    let missing = image.run(&["sh", "missing"]);
    assert_eq!((missing.status, missing.err.as_str()), (Some(127), "sh: missing: No such file or directory\n"));
}

#[test]
fn time_is_told() {
    let got = sh("time true");
    assert_eq!(got.status, Some(0));
    assert!(got.err.starts_with("time: real ") && got.err.lines().count() == 1, "{}", got.err);
}

#[test]
fn help_names_commands_and_first_steps() {
    let got = sh("help");
    for word in ["jobs", "poweroff", "noise -c 1"] {
        assert!(got.out.contains(word), "{word}: {}", got.out);
    }
}
