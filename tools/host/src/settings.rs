//! The variables of `make run-smp`, read from the environment and checked. Used by `run`; the scenarios fill the same
//! struct by hand. Each wrong value gives one line that names the variable and the value.

use crate::failure::Failure;
use crate::limine;
use crate::tree::Profile;
use std::path::PathBuf;
use std::time::Duration;

/// CPUs that QEMU's q35 takes with 8-bit APIC ids; more need x2APIC and an interrupt remapper.
pub const XAPIC_CPUS: u32 = 255;
/// The most CPUs that boot (checked with x2APIC and intel-iommu).
pub const MAX_CPUS: u32 = 288;

/// Which accelerator was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accel {
    /// KVM if it really runs a guest, else TCG.
    Auto,
    /// QEMU's own translator.
    Tcg,
    /// KVM, or an error.
    Kvm,
}

/// Which boot loader was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loader {
    /// The real Limine where one is found, else the direct loader.
    Auto,
    /// Our own, without firmware.
    Direct,
    /// The real Limine, or an error.
    Limine,
}

/// The firmware below the real Limine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Firmware {
    /// QEMU's SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// Everything that a boot depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of CPUs.
    pub smp: u32,
    /// Memory in QEMU's syntax.
    pub mem: String,
    /// The kernel's build profile.
    pub profile: Profile,
    /// Kernel parameters behind those of `limine.cfg`.
    pub cmdline: String,
    /// Root file system in place of our own.
    pub initrd: Option<PathBuf>,
    /// A directory of the host as root file system.
    pub root: Option<PathBuf>,
    /// Debian's busybox as the shell of our root file system.
    pub busybox: bool,
    /// The accelerator asked for.
    pub accel: Accel,
    /// Virtual time counts instructions.
    pub icount: bool,
    /// QEMU CPU model; None: `max` under TCG, `host` under KVM.
    pub cpu: Option<String>,
    /// The boot loader asked for; `limine::choose` turns it into a choice.
    pub loader: Loader,
    /// The firmware for the real Limine.
    pub firmware: Firmware,
    /// Where the real Limine is.
    pub limine_dir: Option<PathBuf>,
    /// A Limine that is not here may be downloaded.
    pub limine_download: bool,
    /// From where.
    pub limine_url: String,
    /// File for the second serial port.
    pub trace: Option<PathBuf>,
    /// Limit on the whole run.
    pub timeout: Option<Duration>,
    /// Further QEMU arguments.
    pub qemu_args: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            smp: 4,
            mem: "512M".into(),
            profile: Profile::Release,
            cmdline: String::new(),
            initrd: None,
            root: None,
            busybox: false,
            accel: Accel::Auto,
            icount: false,
            cpu: None,
            loader: Loader::Auto,
            firmware: Firmware::Bios,
            limine_dir: None,
            limine_download: false,
            limine_url: limine::URL.into(),
            trace: None,
            timeout: None,
            qemu_args: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the variables of this process's environment.
    pub fn from_environment() -> Result<Settings, Failure> {
        Settings::read(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Reads the variables through `lookup` (the environment, or a table in tests). An empty value counts as not given.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
        let given = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let mut settings = Settings::default();
        if let Some(value) = given("SMP") {
            let smp = value.parse::<u32>().ok().filter(|n| (1..=MAX_CPUS).contains(n));
            settings.smp = smp.ok_or_else(|| wrong("SMP", &value, &format!("a number from 1 to {MAX_CPUS}")))?;
        }
        if let Some(value) = given("MEM") {
            if !is_memory_size(&value) {
                return Err(wrong("MEM", &value, "a size such as 512M or 4G"));
            }
            settings.mem = value;
        }
        if let Some(value) = given("PROFILE") {
            settings.profile = match value.as_str() {
                "release" => Profile::Release,
                "debug" => Profile::Debug,
                _ => return Err(wrong("PROFILE", &value, "release or debug")),
            };
        }
        settings.cmdline = given("CMDLINE").unwrap_or_default();
        if settings.cmdline.contains(['\n', '\0']) {
            return Err(wrong("CMDLINE", &settings.cmdline.escape_debug().to_string(), "a single line"));
        }
        if let Some(value) = given("INITRD") {
            std::fs::File::open(&value).map_err(|e| Failure::Usage(format!("INITRD={value}: {e}")))?;
            settings.initrd = Some(value.into());
        }
        if let Some(value) = given("ROOT") {
            std::fs::read_dir(&value).map_err(|e| Failure::Usage(format!("ROOT={value}: {e}")))?;
            settings.root = Some(value.into());
        }
        if let Some(value) = given("SHELL_PROGRAM") {
            settings.busybox = match value.as_str() {
                "busybox" => true,
                "quiesce" => false,
                _ => return Err(wrong("SHELL_PROGRAM", &value, "busybox or quiesce")),
            };
        }
        if let Some(value) = given("ACCEL") {
            settings.accel = match value.as_str() {
                "auto" => Accel::Auto,
                "tcg" => Accel::Tcg,
                "kvm" => Accel::Kvm,
                _ => return Err(wrong("ACCEL", &value, "auto, tcg or kvm")),
            };
        }
        if let Some(value) = given("ICOUNT") {
            settings.icount = match value.as_str() {
                "0" => false,
                "1" => true,
                _ => return Err(wrong("ICOUNT", &value, "0 or 1")),
            };
        }
        settings.cpu = given("CPU");
        if let Some(value) = given("LOADER") {
            settings.loader = match value.as_str() {
                "auto" => Loader::Auto,
                "direct" => Loader::Direct,
                "limine" => Loader::Limine,
                _ => return Err(wrong("LOADER", &value, "auto, direct or limine")),
            };
        }
        if let Some(value) = given("FIRMWARE") {
            settings.firmware = match value.as_str() {
                "bios" => Firmware::Bios,
                "uefi" => Firmware::Uefi,
                _ => return Err(wrong("FIRMWARE", &value, "bios or uefi")),
            };
        }
        settings.limine_dir = given("LIMINE_DIR").map(PathBuf::from);
        if let Some(dir) = &settings.limine_dir {
            limine::Limine::open(dir)?;
        }
        if let Some(value) = given("LIMINE_DOWNLOAD") {
            settings.limine_download = match value.as_str() {
                "0" => false,
                "1" => true,
                _ => return Err(wrong("LIMINE_DOWNLOAD", &value, "0 or 1")),
            };
        }
        if let Some(url) = given("LIMINE_URL") {
            settings.limine_url = url;
        }
        settings.trace = given("TRACE").map(PathBuf::from);
        if let Some(path) = &settings.trace {
            let new = !path.exists();
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|_| if new { std::fs::remove_file(path) } else { Ok(()) })
                .map_err(|e| Failure::Usage(format!("TRACE={}: {e}", path.display())))?;
        }
        if let Some(value) = given("TIMEOUT") {
            let seconds = value.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0 && *s < 1e9);
            let seconds = seconds.ok_or_else(|| wrong("TIMEOUT", &value, "a number of seconds above 0"))?;
            settings.timeout = Some(Duration::from_secs_f64(seconds));
        }
        if let Some(value) = given("QEMU_ARGS") {
            settings.qemu_args =
                split_words(&value).ok_or_else(|| wrong("QEMU_ARGS", &value, "words with closed quotes"))?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Refuses combinations that QEMU cannot run.
    pub fn check(&self) -> Result<(), Failure> {
        let x2apic_wanted = self.cpu.as_deref().is_some_and(asks_for_x2apic);
        let roots =
            [(self.initrd.is_some(), "INITRD"), (self.root.is_some(), "ROOT"), (self.busybox, "SHELL_PROGRAM=busybox")];
        if let [first, second, ..] = roots.iter().filter(|r| r.0).map(|r| r.1).collect::<Vec<_>>()[..] {
            return Err(Failure::Usage(format!("{first} with {second}: each gives the root file system")));
        }
        if self.icount && self.accel == Accel::Kvm {
            return Err(Failure::Usage("ICOUNT=1 with ACCEL=kvm: instructions are counted under TCG only".into()));
        }
        if self.icount && x2apic_wanted {
            let cpu = self.cpu.as_deref().unwrap_or_default();
            return Err(Failure::Usage(format!("ICOUNT=1 with CPU={cpu}: x2APIC does not work with ICOUNT=1")));
        }
        if self.firmware == Firmware::Uefi && self.loader == Loader::Direct {
            return Err(Failure::Usage("FIRMWARE=uefi with LOADER=direct: it needs LOADER=limine".into()));
        }
        if self.icount && self.firmware == Firmware::Uefi {
            return Err(Failure::Usage("ICOUNT=1 with FIRMWARE=uefi: OVMF does not start with ICOUNT=1".into()));
        }
        if self.icount && self.smp > XAPIC_CPUS {
            let smp = self.smp;
            return Err(Failure::Usage(format!("ICOUNT=1 with SMP={smp}: at most {XAPIC_CPUS} CPUs without x2APIC")));
        }
        Ok(())
    }
}

fn wrong(name: &str, value: &str, expected: &str) -> Failure {
    Failure::Usage(format!("{name}={value}: expected {expected}"))
}

fn asks_for_x2apic(cpu: &str) -> bool {
    cpu.split(',').any(|word| matches!(word, "+x2apic" | "x2apic" | "x2apic=on" | "x2apic=true" | "x2apic=yes"))
}

fn is_memory_size(value: &str) -> bool {
    let digits = value.strip_suffix(['K', 'M', 'G', 'k', 'm', 'g']).unwrap_or(value);
    digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u32>().is_ok_and(|n| n > 0)
}

/// Splits as a shell would: blanks separate, quotes and backslashes protect. None if a quote is left open.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let lookup = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_string());
        Settings::read(lookup).map_err(|e| {
            assert_eq!(e.code(), 2);
            e.to_string()
        })
    }

    #[test]
    fn defaults_and_values() {
        let s = read(&[]).unwrap();
        assert_eq!((s.smp, s.mem.as_str(), s.profile), (4, "512M", Profile::Release));
        let s =
            read(&[("SMP", "64"), ("MEM", "4G"), ("PROFILE", "debug"), ("TIMEOUT", "1.5"), ("ICOUNT", "1")]).unwrap();
        assert_eq!((s.smp, s.mem.as_str(), s.profile, s.icount), (64, "4G", Profile::Debug, true));
        assert_eq!(s.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(s.loader, Loader::Auto);
        let s = read(&[("LOADER", "limine"), ("FIRMWARE", "uefi")]).unwrap();
        assert_eq!((s.loader, s.firmware), (Loader::Limine, Firmware::Uefi));
    }

    #[test]
    fn wrong_values_are_named() {
        let wrong = [
            ("SMP", "0"),
            ("SMP", "289"),
            ("SMP", "four"),
            ("MEM", "12X"),
            ("MEM", "0"),
            ("MEM", "M"),
            ("PROFILE", "fast"),
            ("INITRD", "/no/such/file"),
            ("ROOT", "/no/such/dir"),
            ("SHELL_PROGRAM", "zsh"),
            ("ACCEL", "xen"),
            ("ICOUNT", "yes"),
            ("LOADER", "grub"),
            ("FIRMWARE", "coreboot"),
            ("LIMINE_DIR", "/no/such/dir"),
            ("LIMINE_DIR", "/proc"),
            ("LIMINE_DOWNLOAD", "yes"),
            ("TRACE", "/no/such/dir/file"),
            ("TIMEOUT", "0"),
            ("TIMEOUT", "soon"),
            ("QEMU_ARGS", "-name 'open"),
        ];
        for (name, value) in wrong {
            let message = read(&[(name, value)]).expect_err(name);
            assert!(message.contains(&format!("{name}={value}")), "{message}");
        }
    }

    #[test]
    fn impossible_combinations() {
        assert!(read(&[("ICOUNT", "1"), ("ACCEL", "kvm")]).unwrap_err().contains("ACCEL=kvm"));
        assert!(read(&[("ICOUNT", "1"), ("CPU", "max,+x2apic")]).unwrap_err().contains("x2APIC"));
        assert!(read(&[("ICOUNT", "1"), ("SMP", "256")]).unwrap_err().contains("SMP=256"));
        assert!(read(&[("ICOUNT", "1"), ("CPU", "max,-x2apic")]).is_ok());
        assert!(read(&[("ICOUNT", "1"), ("FIRMWARE", "uefi")]).unwrap_err().contains("FIRMWARE=uefi"));
        assert!(read(&[("ROOT", "/tmp"), ("SHELL_PROGRAM", "busybox")]).unwrap_err().contains("SHELL_PROGRAM=busybox"));
        assert!(read(&[("FIRMWARE", "uefi"), ("LOADER", "direct")]).unwrap_err().contains("FIRMWARE=uefi"));
    }

    #[test]
    fn words_split_like_a_shell() {
        let split = |s| split_words(s).map(|w| w.join("|"));
        assert_eq!(split(r#"-name "a b" -x 'c\d' e\ f ''"#).as_deref(), Some(r"-name|a b|-x|c\d|e f|"));
        assert_eq!(split("'"), None);
        assert_eq!(split("a\\"), None);
        assert_eq!(split("  ").as_deref(), Some(""));
    }
}
