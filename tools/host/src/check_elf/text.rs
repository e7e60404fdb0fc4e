//! Checks of the whole kernel text.

use super::image::Image;
use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};
use object::{ObjectSection, ObjectSegment, SectionKind, SegmentFlags, elf};

/// W^X by the program headers.
pub fn write_or_execute(image: &Image) -> Vec<String> {
    use object::Object;
    let both = elf::PF_W | elf::PF_X;
    image
        .file
        .segments()
        .filter(|s| matches!(s.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags & both == both))
        .map(|s| format!("segment at {:#x}", s.address()))
        .collect()
}

fn text_ranges(image: &Image) -> Vec<std::ops::Range<u64>> {
    use object::Object;
    image
        .file
        .sections()
        .filter(|s| s.kind() == SectionKind::Text)
        .map(|s| s.address()..s.address() + s.size())
        .collect()
}

/// User SIMD state is live in the registers while the kernel runs: it must not touch them but to save and restore.
pub fn no_simd(image: &Image) -> Vec<String> {
    let mut info = InstructionInfoFactory::new();
    let mut bad = Vec::new();
    for range in text_ranges(image) {
        for i in image.instructions(range) {
            let touches = |r: Register| r.is_vector_register() || r.is_mm() || r.is_st() || r.is_k();
            let state = matches!(
                i.mnemonic(),
                Mnemonic::Xsave64 | Mnemonic::Xrstor64 | Mnemonic::Fxsave64 | Mnemonic::Fxrstor64
            );
            if !state && info.info(&i).used_registers().iter().any(|u| touches(u.register())) {
                let place = image.function_at(i.ip()).map_or("?", |f| &f.name);
                bad.push(format!("{:#x} {i:?} in {place}", i.ip()).chars().take(160).collect());
            }
        }
    }
    bad
}

/// WRMSR to the ICR does not serialise: an IPI could overtake its queue entry.
pub fn fence_before_icr(image: &Image) -> Vec<String> {
    const ICR: u64 = 0x830;
    let mut sites = 0;
    let mut bad = Vec::new();
    for range in text_ranges(image) {
        let code = image.instructions(range);
        for (at, i) in code.iter().enumerate() {
            let loads_icr = i.mnemonic() == Mnemonic::Mov
                && i.op0_register() == Register::ECX
                && i.op_kinds().nth(1) == Some(OpKind::Immediate32)
                && i.immediate(1) == ICR;
            if !loads_icr {
                continue;
            }
            sites += 1;
            let next: Vec<Mnemonic> = code[at + 1..].iter().take(12).map(|i| i.mnemonic()).collect();
            let write = next.iter().position(|&m| m == Mnemonic::Wrmsr);
            let fenced = write.is_some_and(|w| w >= 2 && next[w - 2..w] == [Mnemonic::Mfence, Mnemonic::Lfence]);
            if !fenced {
                bad.push(format!("{:#x}: ICR write without mfence; lfence right before it", i.ip()));
            }
        }
    }
    if sites == 0 {
        bad.push("no write to the x2APIC ICR was found: this check would see nothing".into());
    }
    bad
}

/// Text changes while a CPU waits in `park`: on every way from a PAUSE there to its end stands CPUID.
pub fn park_serialises(image: &Image) -> Vec<String> {
    const PARK: &str = "kernel::isolation::parking::park";
    let Some(park) = image.function(PARK) else { return vec![format!("function {PARK} is missing")] };
    let code = image.instructions(park.start..park.end);
    let sites = image.jump_table().into_iter().filter(|e| (park.start..park.end).contains(&e.code));
    let mut bad: Vec<String> = sites.map(|e| format!("site {:#x} in {PARK}", e.code)).collect();
    let waits = code.iter().filter(|i| i.mnemonic() == Mnemonic::Pause);
    let mut open: Vec<u64> = waits.map(|i| i.next_ip()).collect();
    if open.is_empty() {
        bad.push(format!("{PARK} waits nowhere: this check would see nothing"));
    }
    let mut seen = std::collections::BTreeSet::new();
    while let Some(at) = open.pop() {
        let Some(i) = code.iter().find(|i| i.ip() == at).filter(|_| seen.insert(at)) else { continue };
        if i.mnemonic() == Mnemonic::Cpuid {
            continue;
        }
        match i.flow_control() {
            FlowControl::UnconditionalBranch if (park.start..park.end).contains(&i.near_branch_target()) => {
                open.push(i.near_branch_target());
            }
            FlowControl::ConditionalBranch => open.extend([i.near_branch_target(), i.next_ip()]),
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                bad.push(format!("{at:#x}: {PARK} is left without CPUID"));
            }
            FlowControl::Exception => {}
            _ => open.push(i.next_ip()),
        }
    }
    bad
}
