//! stdlib: processes, their pipes, arguments, environment and ends.

use super::{Done, say};
use crate::entry::{Failure, Outcome};
use std::io::{BufRead, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// This program, called as a child.
fn again(words: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(words);
    Ok(command)
}

/// All of them.
pub fn all() -> Done {
    let output = again(&["words", "a b", "", "ü"])?.output()?;
    say(format_args!("words {:?} {:?}", String::from_utf8_lossy(&output.stdout), output.status.code()));
    for code in [0, 1, 42, 255] {
        say(format_args!("exit {:?}", again(&["exit", &code.to_string()])?.status()?.code()));
    }
    let output = again(&["environment"])?.env_clear().env("B", "2").env("A", "1").output()?;
    say(format_args!("environment {:?}", String::from_utf8_lossy(&output.stdout)));
    let output = again(&["directory"])?.current_dir("/tmp").output()?;
    say(format_args!("directory {:?}", String::from_utf8_lossy(&output.stdout)));
    let mut child = again(&["upper"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let feeder = std::thread::spawn(move || (0..2000).try_for_each(|n| writeln!(input, "line {n}")));
    let mut text = String::new();
    child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?.read_to_string(&mut text)?;
    let fed = feeder.join().is_ok_and(|r| r.is_ok());
    say(format_args!("piped {fed} {} {:?}", text.len(), text.lines().last()));
    say(format_args!("ended {:?}", child.wait()?.code()));
    let output = again(&["complain"])?.stdout(Stdio::null()).output()?;
    say(format_args!("errors {:?}", String::from_utf8_lossy(&output.stderr)));
    let mut child = again(&["upper"])?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    say(format_args!("still there {:?}", child.try_wait()?.is_none()));
    child.kill()?;
    let status = child.wait()?;
    say(format_args!("killed {:?} {:?}", status.code(), status.signal()));
    say(format_args!("aborted {:?}", again(&["abort"])?.status()?.signal()));
    let missing = Command::new("/no/such/program").spawn().map(drop);
    say(format_args!("missing {:?}", missing.err().and_then(|e| e.raw_os_error())));
    std::fs::write("/tmp/noexec", "#!/bin/x")?;
    let refused = Command::new("/tmp/noexec").spawn().map(drop);
    say(format_args!("not executable {:?}", refused.err().and_then(|e| e.raw_os_error())));
    std::fs::remove_file("/tmp/noexec")?;
    let children: Vec<_> =
        (0..16).map(|n| again(&["exit", &n.to_string()])?.spawn()).collect::<Result<_, std::io::Error>>()?;
    let codes: Vec<_> = children.into_iter().map(|mut c| c.wait().ok().and_then(|s| s.code())).collect();
    say(format_args!("sixteen {codes:?}"));
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(b"through")?;
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    say(format_args!("pipe {text:?}"));
    let (reader, mut writer) = std::io::pipe()?;
    drop(reader);
    // As an error, not as the signal's default action.
    let before = crate::linux::set_signal(libc::SIGPIPE, crate::linux::Disposition::Ignore);
    say(format_args!(
        "{} nobody reads {:?}",
        before.is_ok(),
        writer.write_all(b"x").err().and_then(|e| e.raw_os_error())
    ));
    let _ = crate::linux::set_signal(libc::SIGPIPE, crate::linux::Disposition::Default);
    Ok(())
}

/// What a child does, by its first word.
pub fn child(words: &[String]) -> Outcome {
    let io = |e: std::io::Error| Failure::new(e.to_string());
    let mut out = std::io::stdout().lock();
    match words {
        [what, rest @ ..] if what == "words" => writeln!(out, "{rest:?}").map_err(io)?,
        [what, code] if what == "exit" => std::process::exit(code.parse().unwrap_or(99)),
        [what] if what == "environment" => {
            let mut all: Vec<_> = std::env::vars().collect();
            all.sort();
            writeln!(out, "{all:?}").map_err(io)?;
        }
        [what] if what == "directory" => {
            let here = std::env::current_dir().map_err(io)?;
            writeln!(out, "{}", here.display()).map_err(io)?;
        }
        [what] if what == "upper" => {
            for line in std::io::stdin().lock().lines() {
                writeln!(out, "{}", line.map_err(io)?.to_uppercase()).map_err(io)?;
            }
        }
        [what] if what == "complain" => eprintln!("to standard error"),
        [what] if what == "abort" => std::process::abort(),
        _ => return Err(Failure::usage("stdlib child: unknown word")),
    }
    out.flush().map_err(io)?;
    Ok(0)
}
