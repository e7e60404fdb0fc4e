//! Reads limine.cfg (Limine up to version 7) and writes the limine.conf of version 8 and later.
//!
//! Callers: the loader reads its configuration, the host's image tool turns it into limine.conf. Invariants: no
//! input panics; all texts are slices of the input; of a key given twice in one place the last wins.
//! Source: Limine's CONFIG.md, "Structure of the config file", of both versions. Macros and sub-entries are refused
//! by name where they would matter; keys that only concern menu and graphics are skipped.

#[cfg(test)]
mod tests;

use alloc::string::String;
use arrayvec::ArrayVec;
use core::fmt;
use core::fmt::Write;

/// The most modules of one entry.
pub const MAX_MODULES: usize = 16;

/// A file to load beside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Where it is, a URI: `boot:///boot/initrd.cpio`. See [`strip_boot_uri`].
    pub path: &'a str,
    /// The text that goes with it; empty if none is given.
    pub cmdline: &'a str,
}

/// What one entry, the default one, says, and the global keys that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// TIMEOUT in seconds; `None` for `no` or where it is not given.
    pub timeout: Option<u32>,
    /// SERIAL is `yes`.
    pub serial: bool,
    /// The entry's name.
    pub entry_name: &'a str,
    /// PROTOCOL.
    pub protocol: &'a str,
    /// KERNEL_PATH, a URI. See [`strip_boot_uri`].
    pub kernel_path: &'a str,
    /// KERNEL_CMDLINE or CMDLINE; empty if not given.
    pub cmdline: &'a str,
    /// MODULE_PATH and MODULE_CMDLINE, in order.
    pub modules: ArrayVec<Module<'a>, MAX_MODULES>,
}

/// What is wrong with a configuration, and on which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CfgError {
    /// Line number, counted from 1; 0 where the file as a whole lacks something.
    pub line: u32,
    /// What.
    pub kind: CfgErrorKind,
}

/// The ways in which a configuration can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfgErrorKind {
    /// A line is neither empty, comment, `:entry` nor `KEY=VALUE`.
    NotAnAssignment,
    /// TIMEOUT or DEFAULT_ENTRY is no number.
    BadNumber(&'static str),
    /// There is no entry, or not as many as DEFAULT_ENTRY says.
    NoEntry(u32),
    /// The chosen entry lacks this key.
    Missing(&'static str),
    /// MODULE_CMDLINE before any MODULE_PATH.
    NoModule,
    /// More than [`MAX_MODULES`] modules.
    TooManyModules,
    /// `${…}` is used in a value that matters here.
    Macro,
}

impl fmt::Display for CfgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limine.cfg")?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        match self.kind {
            CfgErrorKind::NotAnAssignment => write!(f, ": neither KEY=VALUE nor :entry nor #comment"),
            CfgErrorKind::BadNumber(key) => write!(f, ": {key} is not a number"),
            CfgErrorKind::NoEntry(1) => write!(f, ": no entry (a line `:Name`)"),
            CfgErrorKind::NoEntry(number) => write!(f, ": DEFAULT_ENTRY={number}, but there are fewer entries"),
            CfgErrorKind::Missing(key) => write!(f, ": the entry has no {key}"),
            CfgErrorKind::NoModule => write!(f, ": MODULE_CMDLINE without a MODULE_PATH before it"),
            CfgErrorKind::TooManyModules => write!(f, ": more than {MAX_MODULES} modules"),
            CfgErrorKind::Macro => write!(f, ": macros (${{...}}) are not supported"),
        }
    }
}

/// One line that says something.
enum Line<'a> {
    Entry(&'a str),
    Assign(&'a str, &'a str),
}

/// The lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (u32, Result<Line<'_>, CfgErrorKind>)> {
    (1u32..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim();
        let meaning = if line.is_empty() || line.starts_with('#') {
            return None;
        } else if line.starts_with(':') {
            Ok(Line::Entry(line))
        } else {
            let pair = line.split_once('=').filter(|(key, _)| !key.trim().is_empty());
            pair.map(|(key, value)| Line::Assign(key.trim(), value.trim())).ok_or(CfgErrorKind::NotAnAssignment)
        };
        Some((number, meaning))
    })
}

/// The entry that DEFAULT_ENTRY names (else the first), and the global keys.
///
/// Keys count in capitals and small letters alike. Errors name the line. Entries that are not chosen may hold
/// anything that has the form of an assignment.
pub fn parse(text: &str) -> Result<Config<'_>, CfgError> {
    let at = |line, kind| CfgError { line, kind };
    let mut timeout = None;
    let mut serial = false;
    let mut default_entry = (0, 1);
    for (line, meaning) in lines(text) {
        let Line::Assign(key, value) = meaning.map_err(|kind| at(line, kind))? else { continue };
        if key.eq_ignore_ascii_case("TIMEOUT") {
            timeout = match value {
                value if value.eq_ignore_ascii_case("no") => None,
                value => Some(value.parse().map_err(|_| at(line, CfgErrorKind::BadNumber("TIMEOUT")))?),
            };
        } else if key.eq_ignore_ascii_case("SERIAL") {
            serial = value.eq_ignore_ascii_case("yes");
        } else if key.eq_ignore_ascii_case("DEFAULT_ENTRY") {
            let number: Option<u32> = value.parse().ok().filter(|&number| number > 0);
            default_entry = (line, number.ok_or(at(line, CfgErrorKind::BadNumber("DEFAULT_ENTRY")))?);
        }
    }
    let (default_line, default_number) = default_entry;
    let mut config = Config {
        timeout,
        serial,
        entry_name: "",
        protocol: "",
        kernel_path: "",
        cmdline: "",
        modules: ArrayVec::new(),
    };
    let mut entry = 0;
    let mut entry_line = 0;
    for (line, meaning) in lines(text) {
        match meaning.map_err(|kind| at(line, kind))? {
            Line::Entry(name) => {
                entry += 1;
                if entry == default_number {
                    config.entry_name = name.trim_start_matches(':').trim_start_matches('+').trim();
                    entry_line = line;
                }
            }
            Line::Assign(key, value) if entry == default_number => {
                assign(&mut config, key, value).map_err(|kind| at(line, kind))?;
            }
            Line::Assign(..) => {}
        }
    }
    if entry_line == 0 {
        return Err(at(default_line, CfgErrorKind::NoEntry(default_number)));
    }
    if config.protocol.is_empty() {
        return Err(at(entry_line, CfgErrorKind::Missing("PROTOCOL")));
    }
    if config.kernel_path.is_empty() {
        return Err(at(entry_line, CfgErrorKind::Missing("KERNEL_PATH")));
    }
    Ok(config)
}

/// Takes over one assignment of the chosen entry.
fn assign<'a>(config: &mut Config<'a>, key: &'a str, value: &'a str) -> Result<(), CfgErrorKind> {
    let is = |name: &str| key.eq_ignore_ascii_case(name);
    if is("PROTOCOL") {
        config.protocol = value;
    } else if is("KERNEL_PATH") {
        config.kernel_path = value;
    } else if is("KERNEL_CMDLINE") || is("CMDLINE") {
        config.cmdline = value;
    } else if is("MODULE_PATH") {
        config.modules.try_push(Module { path: value, cmdline: "" }).map_err(|_| CfgErrorKind::TooManyModules)?;
    } else if is("MODULE_CMDLINE") || is("MODULE_STRING") {
        config.modules.last_mut().ok_or(CfgErrorKind::NoModule)?.cmdline = value;
    } else {
        return Ok(());
    }
    if value.contains("${") { Err(CfgErrorKind::Macro) } else { Ok(()) }
}

/// The path within the boot volume that a URI names: `boot/quiesce` for `boot:///boot/quiesce`.
///
/// Takes the forms `boot:///x`, `boot:/x`, `boot():/x` and plain `/x`; a partition in the URI (`boot://2/x`), a
/// leading `$` and a hash after `#` are left out. Any other resource (`hdd://…`) is returned as it is.
pub fn strip_boot_uri(path: &str) -> &str {
    let uri = path.strip_prefix('$').unwrap_or(path);
    let inner = if let Some(rest) = uri.strip_prefix("boot://") {
        rest.split_once('/').map_or("", |(_partition, inner)| inner)
    } else if let Some(rest) = uri.strip_prefix("boot(").and_then(|rest| rest.split_once("):")) {
        rest.1
    } else if let Some(rest) = uri.strip_prefix("boot:") {
        rest
    } else if uri.starts_with('/') {
        uri
    } else {
        return path;
    };
    let inner = inner.split_once('#').map_or(inner, |(inner, _hash)| inner);
    inner.trim_start_matches('/')
}

/// The same configuration in the syntax of Limine 8 and later.
pub fn to_limine_conf(config: &Config<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_limine_conf(config, &mut text);
    text
}

fn write_limine_conf(config: &Config<'_>, out: &mut String) -> fmt::Result {
    match config.timeout {
        Some(seconds) => writeln!(out, "timeout: {seconds}")?,
        None => writeln!(out, "timeout: no")?,
    }
    if config.serial {
        writeln!(out, "serial: yes")?;
    }
    writeln!(out, "\n/{}", config.entry_name)?;
    writeln!(out, "    protocol: {}", config.protocol)?;
    writeln!(out, "    kernel_path: {}", NewUri(config.kernel_path))?;
    if !config.cmdline.is_empty() {
        writeln!(out, "    cmdline: {}", config.cmdline)?;
    }
    for module in &config.modules {
        writeln!(out, "    module_path: {}", NewUri(module.path))?;
        if !module.cmdline.is_empty() {
            writeln!(out, "    module_cmdline: {}", module.cmdline)?;
        }
    }
    Ok(())
}

/// Prints a version 7 URI `resource://root/path` as version 8 writes it: `resource(root):/path`.
struct NewUri<'a>(&'a str);

impl fmt::Display for NewUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.split_once("://").and_then(|(resource, rest)| Some((resource, rest.split_once('/')?)));
        match parts {
            Some((resource, (root, path))) => write!(f, "{resource}({root}):/{path}"),
            None => f.write_str(self.0),
        }
    }
}
