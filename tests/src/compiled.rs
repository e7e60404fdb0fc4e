//! Programs of `tests/programs`, built by the host's own compilers for a guest. Used by the scenarios that run what users bring.

use crate::Failed;
use host::tree::Tree;
use std::path::PathBuf;
use std::process::Command;

/// Builds `tests/programs/NAME` by `compiler` with `flags`; its bytes. `Err(Ok(why))`: the compiler is not there.
pub fn program(tree: &Tree, compiler: &str, name: &str, flags: &[&str]) -> Result<Vec<u8>, Result<String, Failed>> {
    let source = tree.root.join("tests/programs").join(name);
    let folder = std::env::temp_dir();
    let out: PathBuf = folder.join(format!("quiesce-{name}-{}", std::process::id()));
    let built = Command::new(compiler).args(flags).arg("-o").arg(&out).arg(&source).output();
    let built = match built {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Ok(format!("{compiler}: not found"))),
        built => built.map_err(|e| Err(Failed(format!("{compiler}: {e}"))))?,
    };
    let bytes = std::fs::read(&out);
    // What could not be built left none.
    let _ = std::fs::remove_file(&out);
    if !built.status.success() {
        return Err(Err(Failed(format!("{compiler} {name}: {}", String::from_utf8_lossy(&built.stderr)))));
    }
    bytes.map_err(|e| Err(Failed(format!("{}: {e}", out.display()))))
}
