//! The UEFI firmware for QEMU (package `ovmf`): where it is. Used by `qemu`.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// Code and variable store, in the places that distributions use.
const PLACES: [(&str, &str); 6] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];

/// The firmware's two flash images.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ovmf {
    /// The code, never written to.
    pub code: PathBuf,
    /// The variable store as it is shipped; a guest gets a private copy.
    pub variables: PathBuf,
}

/// Finds the firmware, or fails with a line that says how to get it.
pub fn find() -> Result<Ovmf, Failure> {
    let there = PLACES.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    match there {
        Some((code, variables)) => Ok(Ovmf { code: code.into(), variables: variables.into() }),
        None => Err(Failure::Usage("FIRMWARE=uefi: OVMF not found; `make setup` installs it (package ovmf)".into())),
    }
}
