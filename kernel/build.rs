//! Hands the kernel's linker script to the linker, and builds the vDSO (kernel/vdso), which the kernel holds as bytes.

use std::path::Path;
use std::process::Command;

fn main() {
    let dir = variable("CARGO_MANIFEST_DIR");
    println!("cargo:rustc-link-arg-bins=-T{dir}/kernel.ld");
    println!("cargo:rustc-link-arg-bins=--no-dynamic-linker");
    println!("cargo:rustc-link-arg-bins=-znognustack");
    println!("cargo:rerun-if-changed=kernel.ld");
    vdso(Path::new(&dir), Path::new(&variable("OUT_DIR")));
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Compiles and links kernel/vdso/src/object.rs to vdso.so in `out`. Always optimised: programs run it in debug builds too.
fn vdso(kernel: &Path, out: &Path) {
    let source = kernel.join("vdso");
    for file in ["src/object.rs", "src/page.rs", "vdso.ld"] {
        println!("cargo:rerun-if-changed={}", source.join(file).display());
    }
    let (rustc, object, linked) = (variable("RUSTC"), out.join("vdso.o"), out.join("vdso.linked"));
    let mut compile = Command::new(&rustc);
    compile.args(["--edition=2024", "--crate-name=vdso", "--crate-type=bin", "--emit=obj"]);
    compile.args(["--target=x86_64-unknown-none", "-Crelocation-model=pic", "-Ccode-model=small", "-Copt-level=3"]);
    compile.args(["-Cforce-frame-pointers=no", "-o"]).arg(&object).arg(source.join("src/object.rs"));
    run(compile.env_remove("RUSTFLAGS"));
    let sysroot = run(Command::new(&rustc).args(["--print", "sysroot"]));
    let linker = Path::new(sysroot.trim()).join("lib/rustlib").join(variable("HOST")).join("bin/rust-lld");
    let mut link = Command::new(linker);
    link.args(["-flavor", "gnu", "-shared", "-soname=linux-vdso.so.1", "--hash-style=both", "--build-id=none"]);
    link.args(["-znoexecstack", "-zrodynamic", "--gc-sections", "--no-undefined", "--strip-all", "-T"]);
    run(link.arg(source.join("vdso.ld")).arg("-o").arg(&linked).arg(&object));
    let mut bytes = std::fs::read(&linked).unwrap_or_else(|e| panic!("{}: {e}", linked.display()));
    // What programs see is the one segment, whole pages; the table of sections lies behind it and is for linkers.
    const PAGE: usize = 4096;
    const SECTION_OFFSET: std::ops::Range<usize> = 40..48;
    const SECTION_COUNTS: std::ops::Range<usize> = 60..64;
    let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize;
    let segment = field(32);
    let size = field(segment + 32);
    assert!(size > 0 && size.is_multiple_of(PAGE) && field(segment + 8) == 0, "the vDSO is not whole pages");
    bytes.truncate(size);
    bytes[SECTION_OFFSET].fill(0);
    bytes[SECTION_COUNTS].fill(0);
    let image = out.join("vdso.so");
    std::fs::write(&image, bytes).unwrap_or_else(|e| panic!("{}: {e}", image.display()));
}

/// Standard output of a command that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
