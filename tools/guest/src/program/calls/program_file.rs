//! Broken program files: execve refuses each with Linux's error, or the program ends by a signal; the caller goes on.

use super::{Check, ensure, equal};
use crate::linux;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("file_headers", headers),
    ("file_segments", segments),
    ("file_interpreter", interpreter),
    ("file_random", random),
];

const CODE: usize = 0x100;
const FIRST: usize = 64;
const SECOND: usize = 64 + 56;
const ERROR: End = End::Error(libc::ENOEXEC);

/// How an attempt to run a file ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Exit(i32),
    Error(i32),
    Signal(i32),
}

/// A whole program: a code segment, a data segment with more memory than bytes. It ends with status 42.
fn program() -> Vec<u8> {
    let mut file = vec![0u8; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, x86_64, version 1
    put(24, &(0x40_0000 + CODE as u64).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    for (at, flags, words) in [
        (FIRST, 5u8, [0u64, 0x40_0000, 0x40_0000, 0x1000, 0x1000, 0x1000]),
        (SECOND, 6, [0x1000, 0x40_1000, 0x40_1000, 0x1000, 0x3000, 0x1000]),
    ] {
        put(at, &[1, 0, 0, 0, flags, 0, 0, 0]);
        put(at + 8, words.map(u64::to_le_bytes).as_flattened());
    }
    // mov edi, 42; mov eax, 60; syscall
    put(CODE, &[0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    file
}

/// Such a program that runs `code`, as a file that goes with its user.
pub(super) fn file_with_code(code: &[u8]) -> Result<String, String> {
    let path = format!("/tmp/calls-code-{}", linux::own_pid());
    std::fs::write(&path, with(&[(CODE, code)])).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    Ok(path)
}

fn with(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = program();
    for (at, bytes) in changes {
        file[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn run(file: &[u8]) -> Result<End, String> {
    let path = format!("/tmp/calls-broken-{}", linux::own_pid());
    // Anew each time: a file that runs cannot be written.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, file).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let end = match Command::new(&path).status() {
        Ok(status) => status.signal().map_or_else(|| End::Exit(status.code().unwrap_or(-1)), End::Signal),
        Err(error) => End::Error(error.raw_os_error().unwrap_or(0)),
    };
    let _ = std::fs::remove_file(&path);
    Ok(end)
}

fn expect(name: &str, file: &[u8], wanted: &[End]) -> Result<(), String> {
    let end = run(file)?;
    if wanted.contains(&end) { Ok(()) } else { Err(format!("{name}: {end:?}")) }
}

/// Refused, or ended at its first instruction: Linux finds some faults only after the point of no return.
fn never_runs(name: &str, file: &[u8]) -> Result<(), String> {
    match run(file)? {
        End::Error(_) | End::Signal(_) => Ok(()),
        end => Err(format!("{name}: {end:?}")),
    }
}

fn headers() -> Result<(), String> {
    expect("whole", &program(), &[End::Exit(42)])?;
    expect("empty", &[], &[ERROR])?;
    for cut in [1, 4, 16, 40, 63, 64, 100, 175] {
        expect("truncated", &program()[..cut], &[ERROR])?;
    }
    expect("32-bit", &with(&[(4, &[1]), (18, &[3])]), &[ERROR])?;
    expect("ARM", &with(&[(18, &[183])]), &[ERROR])?;
    expect("object file", &with(&[(16, &[1])]), &[ERROR])?;
    expect("core file", &with(&[(16, &[4])]), &[ERROR])?;
    expect("no program headers", &with(&[(56, &[0])]), &[ERROR])?;
    expect("65535 program headers", &with(&[(56, &[255, 255])]), &[ERROR])?;
    expect("header size 0", &with(&[(54, &[0])]), &[ERROR])?;
    expect("headers outside", &with(&[(32, &[0, 0, 1])]), &[ERROR])?;
    expect("headers nowhere", &with(&[(32, &[255; 8])]), &[ERROR])?;
    for entry in [0u64, 0x40_4000, 0x8000_0000_0000, 0xffff_ffff_8000_0000, u64::MAX] {
        never_runs("entry", &with(&[(24, &entry.to_le_bytes())]))?;
    }
    never_runs("entry without the right to execute", &with(&[(24, &0x40_1100u64.to_le_bytes())]))
}

fn segments() -> Result<(), String> {
    // The file goes on behind the data segment's bytes, and the page is zeros there to its end: C libraries take memory from it.
    let mut tail = with(&[(SECOND + 32, &0x10u64.to_le_bytes()), (SECOND + 40, &0x20u64.to_le_bytes())]);
    tail[0x1000..0x2000].fill(7);
    // movzx edi, byte [0x401ff0]; mov eax, 60; syscall
    tail[CODE..CODE + 15]
        .copy_from_slice(&[0x0f, 0xb6, 0x3c, 0x25, 0xf0, 0x1f, 0x40, 0x00, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    expect("behind the zeros", &tail, &[End::Exit(0)])?;
    never_runs("cut before its code", &program()[..CODE - 16])?;
    never_runs("nothing to load", &with(&[(FIRST, &[0]), (SECOND, &[0])]))?;
    never_runs("more bytes than memory", &with(&[(FIRST + 40, &1u64.to_le_bytes())]))?;
    for base in [0x8000_0000_0000u64, 0xffff_ffff_8000_0000, !0xfff, 0x7fff_ffff_f000] {
        never_runs("segment in the wrong place", &with(&[(FIRST + 16, &base.to_le_bytes())]))?;
    }
    for size in [1u64 << 47, 1 << 62, u64::MAX, u64::MAX - 0x40_0000] {
        never_runs("huge memory", &with(&[(SECOND + 40, &size.to_le_bytes())]))?;
    }
    // Large, and within the address space: memory is given when it is touched.
    let large = with(&[(SECOND + 40, &(1u64 << 40).to_le_bytes())]);
    expect(
        "a terabyte",
        &large,
        &[End::Exit(42), End::Error(libc::ENOMEM), End::Signal(libc::SIGKILL), End::Signal(libc::SIGSEGV)],
    )?;
    // Linux maps one over the other.
    let overlap = with(&[(SECOND + 16, &0x40_0000u64.to_le_bytes())]);
    expect("overlap", &overlap, &[ERROR, End::Signal(libc::SIGSEGV), End::Signal(libc::SIGKILL), End::Exit(42)])?;
    let alignment = with(&[(16, &[3]), (FIRST + 48, &(1u64 << 63).to_le_bytes())]);
    run(&alignment).map(drop)
}

fn interpreter() -> Result<(), String> {
    let names = |path: &[u8], size: u64| {
        let mut file =
            with(&[(SECOND, &[3]), (SECOND + 8, &0x1000u64.to_le_bytes()), (SECOND + 32, &size.to_le_bytes())]);
        file[0x1000..0x1000 + path.len()].copy_from_slice(path);
        file
    };
    expect("missing interpreter", &names(b"/no/such/ld.so\0", 15), &[End::Error(libc::ENOENT)])?;
    expect("empty name", &names(b"\0", 0), &[ERROR])?;
    expect("name without its end", &names(b"/no/such", 8), &[ERROR])?;
    expect("name outside", &names(b"", 1 << 40), &[ERROR])?;
    equal!(run(&names(b"/dev/null\0", 10))?, End::Error(libc::EACCES));
    // One that runs: position-independent, and it alone decides how the program ends. 43: `program` itself ends with 42.
    let path = format!("/tmp/calls-interpreter-{}\0", linux::own_pid());
    let mut file = with(&[(16, &[3]), (CODE + 1, &[43])]);
    for at in [24, FIRST + 16, FIRST + 24, SECOND + 16, SECOND + 24] {
        let mut word = [0u8; 8];
        word.copy_from_slice(&file[at..at + 8]);
        file[at..at + 8].copy_from_slice(&(u64::from_le_bytes(word) - 0x40_0000).to_le_bytes());
    }
    let name = path.trim_end_matches('\0');
    std::fs::write(name, &file).map_err(|e| e.to_string())?;
    std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let end = run(&names(path.as_bytes(), path.len() as u64));
    std::fs::write(name, b"no program").map_err(|e| e.to_string())?;
    let broken = run(&names(path.as_bytes(), path.len() as u64));
    let _ = std::fs::remove_file(name);
    equal!(end?, End::Exit(43));
    ensure!(matches!(broken?, End::Error(libc::ELIBBAD | libc::EIO)));
    Ok(())
}

/// Damaged bytes in the headers, as a seed says; whatever happens, happens to the program alone.
fn random() -> Result<(), String> {
    let mut state = 0x5eed_0001u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..150 {
        let mut file = program();
        for _ in 0..=next() % 3 {
            let (at, value) = ((next() % 176) as usize, next());
            file[at] = if value & 0x300 == 0 { 0xff } else { value as u8 };
        }
        run(&file)?;
    }
    Ok(())
}
