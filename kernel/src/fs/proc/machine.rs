//! /proc files about the machine: command line, CPUs, memory, version.

use crate::arch::tsc;
use crate::errno::{EINVAL, Errno};
use crate::fs::initrd;
use crate::mm::{file_pages, frame};
use crate::percpu;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use raw_cpuid::CpuId;

pub(super) fn cmdline(_: u64, out: &mut String) -> Result<(), Errno> {
    super::line(crate::limine::read().map_or("", |boot| boot.cmdline), out)
}

pub(super) fn version(_: u64, out: &mut String) -> Result<(), Errno> {
    let release = crate::syscall::system::RELEASE;
    super::line(format_args!("Linux version {release} (Quiesce {}) #1 SMP", env!("CARGO_PKG_VERSION")), out)
}

/// MemTotal is the RAM that the loader gave, kernel and archive included. Cached is the content of files in memory (the root archive, which
/// files lie in, too). So what is in use for all else is MemTotal - MemFree - Cached, as free(1) computes it.
pub(super) fn meminfo(_: u64, out: &mut String) -> Result<(), Errno> {
    let (total, free) = (frame::ram_bytes() >> 10, frame::free_bytes() >> 10);
    let cached = (file_pages::frame_bytes() + initrd::kept_bytes()) >> 10;
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", cached),
        ("SwapCached", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
    ];
    for (name, kib) in rows {
        let _ = writeln!(out, "{:<15} {kib:>8} kB", alloc::format!("{name}:"));
    }
    Ok(())
}

/// Of Linux's rows those that are known here.
pub(super) fn vmstat(_: u64, out: &mut String) -> Result<(), Errno> {
    let (free, files) = (frame::free_bytes() >> 12, (file_pages::frame_bytes() + initrd::kept_bytes()) >> 12);
    let _ = writeln!(out, "nr_free_pages {free}\nnr_file_pages {files}\noom_kill {}", crate::process::oom::kills());
    Ok(())
}

/// One block a CPU. All CPUs are taken to be like the one that answers.
pub(super) fn cpuinfo(_: u64, out: &mut String) -> Result<(), Errno> {
    let cpuid = CpuId::new();
    let vendor = cpuid.get_vendor_info();
    let brand = cpuid.get_processor_brand_string();
    let feature = cpuid.get_feature_info();
    let (khz, online) = (tsc::khz(), percpu::online());
    let mut flags = String::new();
    if let Some(f) = &feature {
        // In the order of Linux's cpufeatures.h.
        let known = [
            ("fpu", f.has_fpu()),
            ("de", f.has_de()),
            ("pse", f.has_pse()),
            ("tsc", f.has_tsc()),
            ("msr", f.has_msr()),
            ("pae", f.has_pae()),
            ("mce", f.has_mce()),
            ("cx8", f.has_cmpxchg8b()),
            ("apic", f.has_apic()),
            ("sep", f.has_sysenter_sysexit()),
            ("pge", f.has_pge()),
            ("cmov", f.has_cmov()),
            ("pat", f.has_pat()),
            ("mmx", f.has_mmx()),
            ("fxsr", f.has_fxsave_fxstor()),
            ("sse", f.has_sse()),
            ("sse2", f.has_sse2()),
            ("pni", f.has_sse3()),
            ("ssse3", f.has_ssse3()),
            ("fma", f.has_fma()),
            ("cx16", f.has_cmpxchg16b()),
            ("pcid", f.has_pcid()),
            ("sse4_1", f.has_sse41()),
            ("sse4_2", f.has_sse42()),
            ("x2apic", f.has_x2apic()),
            ("movbe", f.has_movbe()),
            ("popcnt", f.has_popcnt()),
            ("tsc_deadline_timer", f.has_tsc_deadline()),
            ("aes", f.has_aesni()),
            ("xsave", f.has_xsave()),
            ("avx", f.has_avx()),
            ("f16c", f.has_f16c()),
            ("rdrand", f.has_rdrand()),
            ("hypervisor", f.has_hypervisor()),
        ];
        known.iter().filter(|k| k.1).for_each(|k| {
            let _ = write!(flags, " {}", k.0);
        });
    }
    for cpu in online.iter() {
        let _ = writeln!(out, "processor\t: {cpu}");
        if let Some(v) = &vendor {
            let _ = writeln!(out, "vendor_id\t: {}", v.as_str());
        }
        if let Some(f) = &feature {
            let (family, model) = (f.family_id(), f.model_id());
            let _ = writeln!(out, "cpu family\t: {family}\nmodel\t\t: {model}");
        }
        if let Some(b) = &brand {
            let _ = writeln!(out, "model name\t: {}", b.as_str().trim());
        }
        if let Some(f) = &feature {
            let _ = writeln!(out, "stepping\t: {}", f.stepping_id());
        }
        let apic = percpu::get(cpu).map_or(0, |a| a.apic_id.load(Ordering::Relaxed));
        let _ = writeln!(out, "cpu MHz\t\t: {}.{:03}", khz / 1000, khz % 1000);
        let _ = writeln!(out, "apicid\t\t: {apic}\nflags\t\t:{flags}\n");
    }
    Ok(())
}

/// /proc/sys/kernel/watchdog_thresh. A watchdog that was not started at boot stays off.
pub(super) fn set_watchdog_thresh(_: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    let seconds = text.trim().parse().ok().filter(|&s| s <= kcore::watchdog::MAX_THRESHOLD_S).ok_or(EINVAL)?;
    crate::time::watchdog::set_threshold_s(seconds);
    Ok(())
}

/// /proc/sys/kernel/randomize_va_space: 0 for the same layout always; 1 and 2 for one at random.
pub(super) fn set_randomize_va_space(_: u64, text: &[u8]) -> Result<(), Errno> {
    let on = match text.trim_ascii() {
        b"0" => false,
        b"1" | b"2" => true,
        _ => return Err(EINVAL),
    };
    crate::process::random::set_layout_random(on);
    Ok(())
}

/// /proc/sysrq-trigger: `c` crashes the kernel on purpose, as in Linux. Other requests are EINVAL.
pub(super) fn sysrq_trigger(_: u64, text: &[u8]) -> Result<(), Errno> {
    match text.first() {
        Some(b'c') => panic!("sysrq triggered crash"),
        _ => Err(EINVAL),
    }
}
