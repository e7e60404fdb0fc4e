//! `host symbolize`: turns the addresses of a kernel epitaph into functions and source lines. Used by `run` after a
//! panic, and by hand with a serial log on standard input.

use crate::failure::Failure;
use crate::tree::{Profile, Tree};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The kernel is linked here; every address of its text lies above.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Command-line options of `host symbolize`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Kernel ELF file [default: the release build]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Take the kernel's debug build
    #[arg(long)]
    debug: bool,
    /// Addresses; without any, they are taken from the serial log on standard input
    addresses: Vec<String>,
}

/// One address to resolve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// The address as printed.
    pub value: u64,
    /// True if it is where a call returns to, so that the call itself lies just before it.
    pub is_return: bool,
}

/// Resolves what the options or standard input name, and prints it.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    let kernel = options.kernel.clone().unwrap_or_else(|| tree.kernel(profile));
    let mut addresses = Vec::new();
    if options.addresses.is_empty() {
        let mut log = Vec::new();
        std::io::stdin().read_to_end(&mut log).map_err(|e| Failure::Usage(format!("standard input: {e}")))?;
        addresses = epitaph(&log);
        if addresses.is_empty() {
            return Err(Failure::Bad("no line with `panic` and no kernel address after it".into()));
        }
    }
    for word in &options.addresses {
        let digits = word.trim_start_matches("0x");
        let value = u64::from_str_radix(digits, 16).map_err(|e| Failure::Usage(format!("address {word}: {e}")))?;
        addresses.push(Address { value, is_return: false });
    }
    print!("{}", resolve(&kernel, &tree.root, &addresses)?);
    Ok(())
}

/// The kernel addresses of the last epitaph in a serial log, in order, each value once: those on a line that starts with
/// `rip`, taken as they are, and those between `backtrace:` and `end of epitaph`, taken as return addresses.
pub fn epitaph(log: &[u8]) -> Vec<Address> {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<String> = text.lines().map(|l| l.to_ascii_lowercase()).collect();
    let Some(first) = lines.iter().rposition(|l| l.contains("panic")) else { return Vec::new() };
    let mut found: Vec<Address> = Vec::new();
    let mut in_backtrace = false;
    for line in &lines[first..] {
        let is_rip = line.trim_start().starts_with("rip");
        if line.contains("end of epitaph") {
            break;
        }
        if is_rip || in_backtrace {
            let values = addresses(line).filter(|value| !found.iter().any(|a| a.value == *value)).collect::<Vec<_>>();
            found.extend(values.into_iter().map(|value| Address { value, is_return: !is_rip }));
        }
        in_backtrace |= line.trim_end().ends_with("backtrace:");
    }
    found
}

/// The kernel addresses on a line, 16 hexadecimal digits each.
fn addresses(line: &str) -> impl Iterator<Item = u64> {
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| {
        let word = word.trim_start_matches("0x");
        let value = u64::from_str_radix(word, 16).ok()?;
        (word.len() == 16 && value > KERNEL_BASE).then_some(value)
    })
}

/// One line for each function at each address (inlined ones included); addresses outside known functions are left out.
pub fn resolve(kernel: &Path, root: &Path, addresses: &[Address]) -> Result<String, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::Usage(format!("{}: {e}", kernel.display()));
    let loader = addr2line::Loader::new(kernel).map_err(|e| fail(&e))?;
    let mut text = String::new();
    for address in addresses {
        let probe = address.value - u64::from(address.is_return);
        let mut frames = loader.find_frames(probe).map_err(|e| fail(&e))?;
        let mut any = false;
        while let Some(frame) = frames.next().map_err(|e| fail(&e))? {
            let function = frame.function.as_ref().and_then(|f| f.demangle().ok().map(|n| n.into_owned()));
            let place = frame.location.as_ref().and_then(|l| Some((short(l.file?, root), l.line.unwrap_or(0))));
            let (Some(function), Some((file, line))) = (function, place) else { continue };
            let mark = if any { "    inlined into" } else { "" };
            let _ = writeln!(text, "  {:#018x}{mark} {} at {file}:{line}", address.value, without_hash(&function));
            any = true;
        }
        if !any && let Some(name) = loader.find_symbol(probe) {
            let name = addr2line::demangle_auto(name.into(), None);
            let _ = writeln!(text, "  {:#018x} {}", address.value, without_hash(&name));
        }
    }
    Ok(text)
}

/// A path below the tree without the tree's own place, any other from its crate's folder on.
fn short(file: &str, root: &Path) -> String {
    let path = Path::new(file);
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// Drops the `::h0123456789abcdef` of Rust's legacy mangling.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((front, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => front,
        _ => name,
    }
}

/// The address of the symbol `name` in the kernel's ELF file; Rust's names without their hash.
pub fn address_of(kernel: &Path, name: &str) -> Result<u64, Failure> {
    use object::{Object, ObjectSymbol};
    let bytes = crate::failure::read(kernel)?;
    let bad = |what: String| Failure::Bad(format!("{}: {what}", kernel.display()));
    let file = object::File::parse(&*bytes).map_err(|e| bad(e.to_string()))?;
    let is = |mangled: &str| format!("{:#}", rustc_demangle::demangle(mangled)) == name;
    let found = file.symbols().find(|s| s.name().is_ok_and(is)).map(|s| s.address());
    found.ok_or_else(|| bad(format!("no symbol {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epitaph_addresses() {
        let log = b"[ 0.1] text at 0xffffffff80000010\r\n[ 0.2] kernel panic: x\r\nRIP 0xffffffff80001234 rsp \
ffff800000001000\r\nrax 0xffffffff80007777\r\nbacktrace:\r\n  0xffffffff80001234\r\n  0xffffffff80005678\r\n\
end of epitaph\r\n  0xffffffff80009999\r\n";
        let expected = [
            Address { value: 0xffff_ffff_8000_1234, is_return: false },
            Address { value: 0xffff_ffff_8000_5678, is_return: true },
        ];
        assert_eq!(epitaph(log), expected);
        assert_eq!(epitaph(b"RIP: ffffffff80001234"), []);
    }

    #[test]
    fn hashes_are_dropped() {
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::hello"), "a::hello");
    }
}
