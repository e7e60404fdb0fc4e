//! Scenario: lines piped into `tools/run-smp` all reach the shell, though they are typed before the guest boots, and
//! the end of the pipe does not end the guest.

use scenarios::{Outcome, run_smp::run_smp};

const COMMON: [(&str, &str); 3] = [("LOADER", "direct"), ("ACCEL", "tcg"), ("TIMEOUT", "300")];

#[test]
fn lines_typed_before_boot_are_run() -> Outcome {
    let run = run_smp(&COMMON, "cpus\npoweroff\n")?;
    assert_eq!(run.code, Some(0), "{run:#?}");
    let first_word_is_number = |l: &&str| l.split_whitespace().next().is_some_and(|w| w.parse::<u32>().is_ok());
    let lines: Vec<&str> = run.stdout.lines().filter(first_word_is_number).collect();
    assert_eq!(lines.len(), 4, "`cpus` prints a line per CPU:\n{}", run.stdout);
    assert!(!run.stdout.contains("run-smp:"), "the runner's own lines go to stderr:\n{}", run.stdout);
    Ok(())
}

#[test]
fn a_long_input_loses_nothing() -> Outcome {
    // Into a file, which is shown after all input has come: what the terminal echoes stands between what commands print.
    let mut input = String::new();
    for i in 0..200 {
        input.push_str(&format!("echo line-{i}-of-piped-input >> /tmp/all\n"));
    }
    input.push_str("cat /tmp/all\npoweroff\n");
    let run = run_smp(&COMMON, &input)?;
    assert_eq!(run.code, Some(0), "{run:#?}");
    let printed = |l: &str, i: u32| l.trim_start_matches("quiesce# ") == format!("line-{i}-of-piped-input");
    let found = (0..200).filter(|&i| run.stdout.lines().any(|l| printed(l, i))).count();
    assert_eq!(found, 200, "{}", run.stdout);
    Ok(())
}
