//! The counting plugin (`tools/plugin/count.c`): builds it, and reads what it wrote. Used by the scenarios and `bench`.

use crate::failure::{self, Failure};
use crate::interrupt::Scratch;
use crate::qemu;
use crate::tool;
use crate::tree::Tree;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first QEMU whose plugin interface the plugin speaks.
const FIRST_QEMU: (u32, u32) = (9, 1);

/// Instructions that one vCPU executed in a region, from its begin mark to its end mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Count {
    /// The region's number.
    pub region: u32,
    /// The vCPU's number in QEMU.
    pub vcpu: u32,
    /// Instructions in the lower half of the address space.
    pub user: u64,
    /// Instructions in the upper half.
    pub kernel: u64,
}

/// Visits to the kernel from user mode, grouped by vCPU and entry point. Lengths are in instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Visits {
    /// The region's number.
    pub region: u32,
    /// The vCPU's number in QEMU.
    pub vcpu: u32,
    /// The first address of these visits.
    pub entry: u64,
    /// How many there were.
    pub n: u64,
    /// The shortest.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The longest.
    pub max: u64,
    /// The most frequent length.
    pub mode: u64,
    /// How many had that length.
    pub mode_n: u64,
    /// All lengths together.
    pub total: u64,
}

/// Instructions of one vCPU from power-on to the first user-mode instruction of any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Boot {
    /// The vCPU's number in QEMU.
    pub vcpu: u32,
    /// Firmware and loader: all in the lower half.
    pub loader: u64,
    /// The kernel: all in the upper half.
    pub kernel: u64,
}

/// All that the plugin reported.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// One for each region and vCPU.
    pub counts: Vec<Count>,
    /// One for each region, vCPU and entry point.
    pub visits: Vec<Visits>,
    /// One for each vCPU; empty if no user-mode instruction ran.
    pub boot: Vec<Boot>,
}

/// Why the plugin cannot be used with this machine's QEMU, if so.
pub fn why_not() -> Option<String> {
    match qemu::version() {
        None => Some(format!("{} not found", qemu::QEMU)),
        Some(version) if version < FIRST_QEMU => {
            Some(format!("QEMU {}.{} is older than {}.{}", version.0, version.1, FIRST_QEMU.0, FIRST_QEMU.1))
        }
        Some(_) => None,
    }
}

/// Builds the plugin if its source is newer, and returns its path.
pub fn build(tree: &Tree) -> Result<PathBuf, Failure> {
    let source = tree.root.join("tools/plugin/count.c");
    let object = tree.target.join("plugin/count.so");
    let time = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if time(&object).is_some_and(|built| time(&source).is_some_and(|changed| changed < built)) {
        return Ok(object);
    }
    // Written under a name of its own first: scenarios in other processes may be building it too.
    let scratch = Scratch::new(tree.target.join(format!("plugin/count.{}.so", std::process::id())));
    failure::write(scratch.path(), &[])?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-o"])
        .arg(scratch.path())
        .arg(&source);
    let status = tool::status(&mut gcc).map_err(|e| tool::failure("gcc", e))?;
    if !status.success() {
        return Err(Failure::Usage(format!("gcc: {} does not compile", source.display())));
    }
    std::fs::rename(scratch.path(), &object).map_err(|e| Failure::Usage(format!("{}: {e}", object.display())))?;
    Ok(object)
}

/// Where the plugin writes: memory of this process without a name, so that no file is left behind.
#[derive(Debug)]
pub struct Counts(File);

impl Counts {
    /// Room for one run's output.
    pub fn new() -> Result<Counts, Failure> {
        let fd = memfd_create(c"quiesce-counts", MFdFlags::MFD_CLOEXEC);
        Ok(Counts(fd.map_err(|e| Failure::Usage(format!("plugin output: {e}")))?.into()))
    }

    /// The name that QEMU may open it by while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// What was written.
    pub fn text(mut self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).map_err(|e| Failure::Usage(format!("plugin output: {e}")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// QEMU's arguments that load the plugin.
pub fn arguments(plugin: &Path, out: &Path) -> [String; 2] {
    ["-plugin".into(), format!("{},out={}", plugin.display(), out.display())]
}

/// The same for a kernel that runs parts of itself in the lower half, below 4 GiB: all that counts as its loader.
/// Position-independent programs, as ours are, lie above.
pub fn arguments_for_linux(plugin: &Path, out: &Path) -> [String; 2] {
    ["-plugin".into(), format!("{},out={},loader_end=0x100000000", plugin.display(), out.display())]
}

/// Reads the plugin's output file.
pub fn parse(text: &str) -> Result<Report, Failure> {
    let mut report = Report::default();
    for line in text.lines() {
        parse_line(line, &mut report).ok_or_else(|| Failure::Bad(format!("plugin output: {line}")))?;
    }
    Ok(report)
}

fn parse_line(line: &str, report: &mut Report) -> Option<()> {
    let (kind, rest) = line.split_once(' ')?;
    let text = |key: &str| rest.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| text(key)?.parse::<u64>().ok();
    let small = |key: &str| text(key)?.parse::<u32>().ok();
    match kind {
        "boot" => {
            report.boot.push(Boot { vcpu: small("vcpu")?, loader: number("loader")?, kernel: number("kernel")? });
        }
        "count" => report.counts.push(Count {
            region: small("region")?,
            vcpu: small("vcpu")?,
            user: number("user")?,
            kernel: number("kernel")?,
        }),
        "visit" => report.visits.push(Visits {
            region: small("region")?,
            vcpu: small("vcpu")?,
            entry: u64::from_str_radix(text("entry")?, 16).ok()?,
            n: number("n")?,
            min: number("min")?,
            median: number("median")?,
            max: number("max")?,
            mode: number("mode")?,
            mode_n: number("mode_n")?,
            total: number("total")?,
        }),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read() {
        let text = "boot vcpu=0 loader=10 kernel=20\ncount region=3 vcpu=1 user=5 kernel=0\n\
visit region=3 vcpu=0 entry=ffffffff80001000 n=4 min=1 median=2 max=3 mode=2 mode_n=2 total=8\n";
        let report = parse(text).unwrap();
        assert_eq!(report.boot, [Boot { vcpu: 0, loader: 10, kernel: 20 }]);
        assert_eq!(report.counts, [Count { region: 3, vcpu: 1, user: 5, kernel: 0 }]);
        assert_eq!(report.visits[0].entry, 0xffff_ffff_8000_1000);
        assert_eq!((report.visits[0].mode, report.visits[0].mode_n, report.visits[0].total), (2, 2, 8));
        assert!(parse("count region=1").is_err());
        assert!(parse("noise").is_err());
    }
}
