//! Scenario: `make iso` with no Limine on the machine says where one can come from, downloads it where that is asked for, says what it
//! fetches, takes it from then on, and leaves nothing behind where that fails. The remote repository is one on this disk.

use host::limine::{BRANCH, Limine, URL};
use scenarios::program::{Program, Run};
use scenarios::sandbox::Sandbox;
use scenarios::{Failed, Outcome, skip};
use std::path::Path;
use std::process::{Command, Stdio};

fn iso(sandbox: &Sandbox, variables: &[(&str, &str)]) -> Result<Run, Failed> {
    Program::start(sandbox.host(&["iso"], variables))?.finish()
}

/// A repository whose branch of binaries has the files of directory `name`.
fn repository(sandbox: &Sandbox, name: &str) -> Result<String, Failed> {
    let folder = sandbox.path(name);
    let git = |words: &[&str]| -> Outcome {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=q", "-c", "user.email=q@example", "-c", "init.defaultBranch=trunk"]).args(words);
        match git.current_dir(&folder).stdout(Stdio::null()).status()?.success() {
            true => Ok(()),
            false => Err(Failed(format!("git {words:?} failed"))),
        }
    };
    git(&["init", "-q"])?;
    git(&["checkout", "-q", "-b", BRANCH])?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "binaries"])?;
    Ok(format!("file://{}", folder.display()))
}

#[track_caller]
fn refused(sandbox: &Sandbox, run: &Run, parts: &[&str]) -> Outcome {
    assert_eq!(run.code, Some(2), "{run:#?}");
    let last = run.stderr.lines().next_back().unwrap_or_default();
    assert!(parts.iter().all(|part| last.contains(part)), "{parts:?}: {run:#?}");
    assert_eq!(run.stderr.lines().filter(|l| !l.contains(": downloading branch ")).count(), 1, "{run:#?}");
    assert_eq!(sandbox.left()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn downloaded_where_that_is_asked_for() -> Outcome {
    if let Some(limine) = Limine::of_distribution() {
        return skip(&format!("the distribution has Limine {}", limine.version));
    }
    let sandbox = Sandbox::new("limine")?;
    sandbox.tool("xorriso", "echo image")?;
    let run = iso(&sandbox, &[])?;
    refused(&sandbox, &run, &["make iso: no Limine in ", "LIMINE_DIR=", "LIMINE_DOWNLOAD=1", URL])?;

    let nowhere = format!("file://{}", sandbox.path("no-such-repository").display());
    let run = iso(&sandbox, &[("LIMINE_DOWNLOAD", "1"), ("LIMINE_URL", &nowhere)])?;
    refused(&sandbox, &run, &[&nowhere, BRANCH, "no-such-repository"])?;
    std::fs::create_dir(sandbox.path("half"))?;
    std::fs::write(sandbox.path("half/BOOTX64.EFI"), "")?;
    let half = repository(&sandbox, "half")?;
    let run = iso(&sandbox, &[("LIMINE_DOWNLOAD", "1"), ("LIMINE_URL", &half)])?;
    refused(&sandbox, &run, &[&half, "it has no limine-bios.sys"])?;

    sandbox.limine("whole")?;
    let whole = repository(&sandbox, "whole")?;
    let run = iso(&sandbox, &[("LIMINE_DOWNLOAD", "1"), ("LIMINE_URL", &whole)])?;
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains(&format!("downloading branch {BRANCH} of {whole} to ")), "{run:#?}");
    assert!(run.stdout.contains("quiesce.iso: Limine 8.0.0"), "{run:#?}");
    assert!(sandbox.path("target/limine/limine-bios.sys").is_file());
    assert!(!Path::new(&sandbox.path("target/limine.part")).exists());
    // It is here now: nothing is fetched, and nothing need be asked for.
    let run = iso(&sandbox, &[("LIMINE_URL", &nowhere)])?;
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    Ok(())
}
