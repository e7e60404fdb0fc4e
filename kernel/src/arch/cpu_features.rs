//! What this CPU has, and the control registers that follow from it. Decided by CPUID, never by trying an MSR.

use kcore::vulnerability::Vendor;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// Features that the kernel's paths depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// Machine checks are exceptions
    pub mce: bool,
    /// Banks say why
    pub mca: bool,
    /// Supervisor-mode execution prevention
    pub smep: bool,
    /// Supervisor-mode access prevention
    pub smap: bool,
    /// User-mode instruction prevention
    pub umip: bool,
    /// RDGSBASE and friends; the kernel needs it
    pub fsgsbase: bool,
    /// XSAVE area and XCR0
    pub xsave: bool,
    /// TSC-deadline mode of the APIC timer
    pub tsc_deadline: bool,
    /// The TSC runs at one rate in every power state
    pub invariant_tsc: bool,
    /// 1 GiB pages
    pub gib_pages: bool,
    /// RDTSCP, which gives the CPU's number with the TSC
    pub rdtscp: bool,
    /// RDPID
    pub rdpid: bool,
    /// RDRAND
    pub rdrand: bool,
    /// Executable bit in page tables can be denied
    pub nx: bool,
}

/// What the running CPU's control registers have on.
pub struct Enabled {
    /// Read-only pages are so for the kernel too
    pub write_protect: bool,
    /// Programs that ask for it get #AC
    pub alignment_mask: bool,
    /// NO_EXECUTE counts
    pub nx: bool,
    /// The kernel runs no user page
    pub smep: bool,
    /// It touches none outside of user copies
    pub smap: bool,
    /// Programs cannot read where descriptor tables are
    pub umip: bool,
}

/// Read CR0, CR4 and EFER.
pub fn enabled() -> Enabled {
    let cr4 = Cr4::read();
    Enabled {
        write_protect: Cr0::read().contains(Cr0Flags::WRITE_PROTECT),
        alignment_mask: Cr0::read().contains(Cr0Flags::ALIGNMENT_MASK),
        nx: Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE),
        smep: cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
        smap: cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
        umip: cr4.contains(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
    }
}

/// Who made the running CPU.
pub fn vendor() -> Vendor {
    CpuId::new().get_vendor_info().map_or(Vendor::Other, |v| Vendor::named(v.as_str()))
}

/// IA32_ARCH_CAPABILITIES of the running CPU, 0 where it has none.
pub fn architecture_capabilities() -> u64 {
    const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
    let leaves = core::arch::x86_64::__cpuid(0).eax;
    if leaves < 7 || core::arch::x86_64::__cpuid_count(7, 0).edx >> 29 & 1 == 0 {
        return 0;
    }
    // A hypervisor may show the bit and not have the register.
    super::msr::rdmsr_safe(IA32_ARCH_CAPABILITIES).unwrap_or(0)
}

impl Features {
    /// Ask CPUID.
    pub fn detect() -> Self {
        let c = CpuId::new();
        let f = c.get_feature_info();
        let e = c.get_extended_feature_info();
        let x = c.get_extended_processor_and_feature_identifiers();
        Self {
            mce: f.as_ref().is_some_and(|f| f.has_mce()),
            mca: f.as_ref().is_some_and(|f| f.has_mca()),
            smep: e.as_ref().is_some_and(|e| e.has_smep()),
            smap: e.as_ref().is_some_and(|e| e.has_smap()),
            umip: e.as_ref().is_some_and(|e| e.has_umip()),
            fsgsbase: e.as_ref().is_some_and(|e| e.has_fsgsbase()),
            xsave: f.as_ref().is_some_and(|f| f.has_xsave()),
            tsc_deadline: f.as_ref().is_some_and(|f| f.has_tsc_deadline()),
            invariant_tsc: c.get_advanced_power_mgmt_info().is_some_and(|a| a.has_invariant_tsc()),
            gib_pages: x.as_ref().is_some_and(|x| x.has_1gib_pages()),
            rdtscp: x.as_ref().is_some_and(|x| x.has_rdtscp()),
            rdpid: e.as_ref().is_some_and(|e| e.has_rdpid()),
            rdrand: f.as_ref().is_some_and(|f| f.has_rdrand()),
            nx: x.as_ref().is_some_and(|x| x.has_execute_disable()),
        }
    }

    /// What is missing that the kernel cannot do without.
    pub fn missing(&self) -> Option<&'static str> {
        (!self.fsgsbase)
            .then_some("FSGSBASE (entry code could not trust GS)")
            .or_else(|| (!self.nx).then_some("NX (no W^X without it)"))
    }

    /// Set CR0, CR4 and EFER of the running CPU. XCR0 is `fpu`'s work.
    ///
    /// # Safety
    /// 1. The page tables are the kernel's own, with NX bits; 2. GS base is the kernel's.
    pub unsafe fn apply(&self) {
        let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
            | Cr4Flags::PAGE_GLOBAL
            | Cr4Flags::OSFXSR
            | Cr4Flags::OSXMMEXCPT_ENABLE
            | Cr4Flags::FSGSBASE;
        for (has, flag) in [
            (self.mce, Cr4Flags::MACHINE_CHECK_EXCEPTION),
            (self.smep, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
            (self.smap, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
            (self.umip, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
            (self.xsave, Cr4Flags::OSXSAVE),
        ] {
            cr4.set(flag, has);
        }
        // SAFETY: 1. each flag is set only where CPUID has it; 2. the caller's conditions.
        unsafe {
            Efer::update(|e| e.insert(EferFlags::SYSTEM_CALL_EXTENSIONS | EferFlags::NO_EXECUTE_ENABLE));
            Cr0::write(
                Cr0Flags::PROTECTED_MODE_ENABLE
                    | Cr0Flags::MONITOR_COPROCESSOR
                    | Cr0Flags::EXTENSION_TYPE
                    | Cr0Flags::NUMERIC_ERROR
                    | Cr0Flags::WRITE_PROTECT
                    // Programs that set AC in their flags get #AC; the kernel never does, whatever AC is there.
                    | Cr0Flags::ALIGNMENT_MASK
                    | Cr0Flags::PAGING,
            );
            Cr4::write(cr4);
        }
    }
}
