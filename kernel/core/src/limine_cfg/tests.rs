//! Unit tests of limine.cfg. Random ones are in tests/prop_limine_cfg.rs.

use super::*;
use alloc::format;
use alloc::string::ToString;

const SAMPLE: &str = "\
# The one source of the boot configuration.
TIMEOUT=0
SERIAL=yes

:Quiesce
    PROTOCOL=limine
    KERNEL_PATH=boot:///boot/quiesce
    KERNEL_CMDLINE=trace_event=irq,ipi,tick,sched quiet=\"a # b\"
    MODULE_PATH=boot:///boot/initrd.cpio
    MODULE_CMDLINE=initrd
    MODULE_PATH=boot:///boot/more
:Other
    PROTOCOL=linux
    KERNEL_PATH=boot:///vmlinuz
";

#[test]
fn the_default_entry() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!((config.timeout, config.serial, config.entry_name), (Some(0), true, "Quiesce"));
    assert_eq!((config.protocol, config.kernel_path), ("limine", "boot:///boot/quiesce"));
    assert_eq!(config.cmdline, "trace_event=irq,ipi,tick,sched quiet=\"a # b\"");
    let modules = [
        Module { path: "boot:///boot/initrd.cpio", cmdline: "initrd" },
        Module { path: "boot:///boot/more", cmdline: "" },
    ];
    assert_eq!(config.modules[..], modules);
    let other = format!("DEFAULT_ENTRY=2\r\n{SAMPLE}");
    let config = parse(&other).unwrap();
    assert_eq!((config.entry_name, config.kernel_path, config.modules.len()), ("Other", "boot:///vmlinuz", 0));
    // Global keys may stand anywhere, also in an entry; small letters are fine.
    let config = parse(":+ X\nprotocol=limine\nkernel_path=k\ntimeout=no\ncmdline=a\ncmdline=b").unwrap();
    assert_eq!((config.timeout, config.entry_name, config.cmdline), (None, "X", "b"));
}

#[test]
fn errors_name_the_line() {
    for (text, expected) in [
        ("", "limine.cfg: no entry (a line `:Name`)"),
        ("A=1\nwhat\n", "limine.cfg line 2: neither KEY=VALUE nor :entry nor #comment"),
        ("=x", "limine.cfg line 1: neither KEY=VALUE nor :entry nor #comment"),
        ("TIMEOUT=x", "limine.cfg line 1: TIMEOUT is not a number"),
        ("DEFAULT_ENTRY=0", "limine.cfg line 1: DEFAULT_ENTRY is not a number"),
        ("\nDEFAULT_ENTRY=2\n:A", "limine.cfg line 2: DEFAULT_ENTRY=2, but there are fewer entries"),
        (":A\nKERNEL_PATH=x", "limine.cfg line 1: the entry has no PROTOCOL"),
        (":A\nPROTOCOL=limine", "limine.cfg line 1: the entry has no KERNEL_PATH"),
        (":A\nMODULE_CMDLINE=x", "limine.cfg line 2: MODULE_CMDLINE without a MODULE_PATH before it"),
        (":A\nCMDLINE=${X}", "limine.cfg line 2: macros (${...}) are not supported"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text:?}");
    }
    let many = format!(":A\n{}", "MODULE_PATH=x\n".repeat(17));
    assert_eq!(parse(&many).unwrap_err(), CfgError { line: 18, kind: CfgErrorKind::TooManyModules });
}

#[test]
fn uris() {
    for (uri, path) in [
        ("boot:///boot/quiesce", "boot/quiesce"),
        ("boot://2/boot/quiesce", "boot/quiesce"),
        ("boot():/boot/quiesce", "boot/quiesce"),
        ("boot(2):/quiesce", "quiesce"),
        ("boot:/quiesce", "quiesce"),
        ("/quiesce", "quiesce"),
        ("$boot:///a.gz#0123abcd", "a.gz"),
        ("boot://", ""),
        ("boot:///", ""),
        ("hdd://1:1/x", "hdd://1:1/x"),
        ("", ""),
    ] {
        assert_eq!(strip_boot_uri(uri), path, "{uri:?}");
    }
}

#[test]
fn the_newer_syntax() {
    let expected = "\
timeout: 0
serial: yes

/Quiesce
    protocol: limine
    kernel_path: boot():/boot/quiesce
    cmdline: trace_event=irq,ipi,tick,sched quiet=\"a # b\"
    module_path: boot():/boot/initrd.cpio
    module_cmdline: initrd
    module_path: boot():/boot/more
";
    assert_eq!(to_limine_conf(&parse(SAMPLE).unwrap()), expected);
}
