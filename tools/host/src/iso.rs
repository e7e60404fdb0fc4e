//! `host iso` (`make iso`), and the disc that LOADER=limine boots: a hybrid ISO 9660 image with the real Limine, the
//! unchanged kernel and the root file system. Boots from CD under BIOS and UEFI, and as a disk under UEFI; as a disk
//! under BIOS too where Limine's own installer is there.
//!
//! limine.cfg (up to version 7) and limine.conf (from version 8) lie side by side in /boot/limine, where every version
//! looks. Sources: Limine's USAGE.md, "BIOS/UEFI hybrid ISO creation", and CONFIG.md, "Location of the config file".

use crate::failure::{self, Failure};
use crate::image;
use crate::interrupt::Scratch;
use crate::limine::{self, Limine};
use crate::settings::Settings;
use crate::tool;
use crate::tree::{Profile, Tree};
use kcore::limine_cfg;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

const XORRISO: &str = "xorriso";

/// Command-line options of `host iso`; PROFILE, CMDLINE, INITRD and LIMINE_* come from the environment.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Where the image goes [default: quiesce.iso in the build directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Builds everything and writes the image.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let settings = Settings::from_environment()?;
    find_xorriso("make iso")?;
    let limine = Limine::wanted(tree, &settings, "make iso", |text| eprintln!("host: {text}"))?;
    let initrd = settings.initrd.as_deref().map(image::initrd_file).transpose()?;
    tree.build(settings.profile)?;
    let initrd = match initrd {
        Some(bytes) => bytes,
        None => image::root_file_system(tree)?,
    };
    let disc = disc(tree, &limine, settings.profile, &initrd, &settings.cmdline)?;
    let out = options.out.clone().unwrap_or_else(|| tree.target.join("quiesce.iso"));
    let (disc, how) = match &limine.installer {
        Some(installer) => (installed(installer, disc)?, "as CD and as disk, under BIOS and UEFI"),
        None => (disc, "as CD under BIOS and UEFI, as disk under UEFI alone (the program `limine` is not there)"),
    };
    failure::write(&out, &disc)?;
    println!("{}: Limine {}, boots {how}", out.display(), limine.version);
    Ok(())
}

/// Fails with a line for `what` if xorriso is missing.
pub fn find_xorriso(what: &str) -> Result<(), Failure> {
    match tool::output(Command::new(XORRISO).arg("-version")) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::Usage(format!("{what}: {XORRISO}: not found; `make setup` installs it")))
        }
        Err(e) => Err(Failure::Usage(format!("{what}: {XORRISO}: {e}"))),
    }
}

/// The image's bytes. `cmdline` is added to the tracked limine.cfg's. Leaves nothing behind.
pub fn disc(tree: &Tree, limine: &Limine, profile: Profile, initrd: &[u8], cmdline: &str) -> Result<Vec<u8>, Failure> {
    let cfg = failure::read(&tree.root.join("limine.cfg"))?;
    let cfg = String::from_utf8(cfg).map_err(|_| Failure::Usage("limine.cfg: not UTF-8".into()))?;
    let cfg = with_cmdline(&cfg, cmdline)?;
    let conf = limine_cfg::to_limine_conf(&parsed(&cfg)?);
    let stage = Stage::new(&tree.target.join("iso"))?;
    stage.file("boot/quiesce", &image::loadable_part(&tree.kernel(profile))?)?;
    stage.file("boot/initrd.cpio", initrd)?;
    stage.file("boot/limine/limine.cfg", cfg.as_bytes())?;
    stage.file("boot/limine/limine.conf", conf.as_bytes())?;
    for name in limine::FILES {
        let folder = if name.ends_with(".EFI") { "EFI/BOOT" } else { "boot/limine" };
        stage.file(&format!("{folder}/{name}"), &failure::read(&limine.dir.join(name))?)?;
    }
    let mut xorriso = Command::new(XORRISO);
    xorriso
        .args(["-as", "mkisofs", "-R", "-V", "QUIESCE", "-b", "boot/limine/limine-bios-cd.bin"])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["--efi-boot", "boot/limine/limine-uefi-cd.bin", "-efi-boot-part", "--efi-boot-image"])
        .args(["--protective-msdos-label", "-o", "-"])
        .arg(stage.tree());
    let output = tool::output(&mut xorriso).map_err(|e| tool::failure(XORRISO, e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find(|l| l.contains("FAILURE") || l.contains("FATAL")).unwrap_or_default();
    Err(Failure::Usage(format!("{XORRISO} ended with {}: {line}", output.status)))
}

/// The image with Limine's BIOS stage in its first sectors, so that it boots as a disk under BIOS too.
pub fn installed(installer: &Path, disc: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let fail = |why: &str| Failure::Usage(format!("{} bios-install: {why}", installer.display()));
    let file = nix::sys::memfd::memfd_create(c"quiesce-iso", nix::sys::memfd::MFdFlags::empty());
    let mut file = File::from(file.map_err(|e| fail(e.desc()))?);
    file.write_all(&disc).map_err(|e| fail(&e.to_string()))?;
    // The descriptor is inherited, so the path means this file in the child too.
    let image = format!("/proc/self/fd/{}", file.as_raw_fd());
    let output =
        tool::output(Command::new(installer).args(["bios-install", &image])).map_err(|e| fail(&e.to_string()))?;
    if !output.status.success() {
        return Err(fail(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("failed")));
    }
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| fail(&e.to_string()))?;
    Ok(bytes)
}

/// `cfg` with `words` behind its kernel command line. What comes out is read back and compared.
fn with_cmdline(cfg: &str, words: &str) -> Result<String, Failure> {
    let words = words.trim();
    let before = parsed(cfg)?.cmdline;
    if words.is_empty() {
        return Ok(cfg.to_string());
    }
    let key_of = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_ascii_uppercase());
    let is_cmdline = |line: &str| matches!(key_of(line).as_deref(), Some("KERNEL_CMDLINE" | "CMDLINE"));
    let mut text = String::new();
    for line in cfg.lines() {
        text.push_str(line);
        if is_cmdline(line) {
            text.push_str(&format!(" {words}"));
        }
        text.push('\n');
    }
    if !cfg.lines().any(is_cmdline) {
        text.push_str(&format!("KERNEL_CMDLINE={words}\n"));
    }
    let expected = format!("{before} {words}");
    let carried = limine_cfg::parse(&text).is_ok_and(|config| config.cmdline == expected.trim_start());
    if carried { Ok(text) } else { Err(Failure::Usage(format!("CMDLINE={words}: limine.cfg cannot carry it"))) }
}

fn parsed(cfg: &str) -> Result<limine_cfg::Config<'_>, Failure> {
    limine_cfg::parse(cfg).map_err(|e| Failure::Usage(e.to_string()))
}

/// The folder that xorriso reads. One at a time for a build directory; emptied first, removed at the end.
struct Stage {
    folder: Scratch,
    _lock: File,
}

impl Stage {
    fn new(place: &Path) -> Result<Stage, Failure> {
        let fail = |e: std::io::Error| Failure::Usage(format!("{}: {e}", place.display()));
        std::fs::create_dir_all(place).map_err(fail)?;
        let lock = File::create(place.join("lock")).map_err(fail)?;
        lock.lock().map_err(fail)?;
        Ok(Stage { folder: Scratch::new(place.join("stage")), _lock: lock })
    }

    fn tree(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        failure::write(&self.tree().join(name), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: &str = "TIMEOUT=0\n\n:Quiesce\nPROTOCOL=limine\nKERNEL_PATH=boot:///k\nKERNEL_CMDLINE=a=b\n";

    #[test]
    fn cmdline_is_appended() {
        let text = with_cmdline(CFG, " nohz_full=1-3 ").unwrap();
        assert_eq!(limine_cfg::parse(&text).unwrap().cmdline, "a=b nohz_full=1-3");
        assert_eq!(with_cmdline(CFG, "").unwrap(), CFG);
        let without = CFG.replace("KERNEL_CMDLINE=a=b\n", "");
        let text = with_cmdline(&without, "quiet").unwrap();
        assert_eq!(limine_cfg::parse(&text).unwrap().cmdline, "quiet");
    }

    #[test]
    fn what_limine_would_expand_is_refused() {
        let message = with_cmdline(CFG, "x=${ARCH}").unwrap_err().to_string();
        assert!(message.contains("CMDLINE=x=${ARCH}"), "{message}");
    }

    #[test]
    fn a_stage_is_emptied_and_removed() {
        let place = std::env::temp_dir().join(format!("quiesce-stage-test-{}", std::process::id()));
        std::fs::create_dir_all(place.join("stage/old")).unwrap();
        let stage = Stage::new(&place).unwrap();
        stage.file("a/b", b"c").unwrap();
        assert!(place.join("stage/a/b").is_file() && !place.join("stage/old").exists());
        drop(stage);
        assert!(!place.join("stage").exists());
        std::fs::remove_dir_all(&place).unwrap();
    }
}
