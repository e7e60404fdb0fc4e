//! The Limine boot protocol, base revision 2, as far as this loader speaks it: magics and layouts.
//!
//! Pointers are u64 direct-map addresses. Source: the Limine project's PROTOCOL.md, section of each feature.

/// The base revision that this loader provides.
pub const BASE_REVISION: u64 = 2;
/// The first two words of the base revision tag; the third is the wanted revision, 0 once it is granted.
pub const BASE_REVISION_TAG: [u64; 2] = [0xf956_2b2d_5c95_a6c8, 0x6a7b_3849_4453_6bdc];
/// Requests lie behind this marker, if the kernel has it …
pub const REQUESTS_START: [u64; 4] =
    [0xf6b8_f4b3_9de7_d1ae, 0xfab9_1a69_40fc_b9cf, 0x785c_6ed0_15d3_e316, 0x181e_920a_7852_b9d9];
/// … and before this one.
pub const REQUESTS_END: [u64; 2] = [0xadc0_e053_1bb1_0d03, 0x9572_709f_3176_4c62];
/// The first two words of every request; the other two tell which.
pub const REQUEST: [u64; 2] = [0xc7b1_dd30_df4c_8b88, 0x0a82_e883_a194_f07b];

/// In a request, the bytes from its start to the response pointer, and to its first own field.
pub const RESPONSE_OFFSET: usize = 40;
/// See [`RESPONSE_OFFSET`].
pub const FIELD_OFFSET: usize = 48;

/// The features that are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Bootloader Info.
    BootloaderInfo,
    /// Stack Size; field: bytes.
    StackSize,
    /// HHDM.
    Hhdm,
    /// MP; field: flags.
    Mp,
    /// Memory Map.
    MemoryMap,
    /// Executable File (formerly Kernel File).
    ExecutableFile,
    /// Executable Command Line.
    ExecutableCommandLine,
    /// Module.
    Modules,
    /// RSDP.
    Rsdp,
    /// Date at Boot (formerly Boot Time).
    DateAtBoot,
    /// Executable Address (formerly Kernel Address).
    ExecutableAddress,
}

/// Every feature with the last two words of its request.
pub const FEATURES: [(Feature, [u64; 2]); 11] = [
    (Feature::BootloaderInfo, [0xf550_38d8_e2a1_202f, 0x2794_26fc_f5f5_9740]),
    (Feature::StackSize, [0x224e_f046_0a8e_8926, 0xe1cb_0fc2_5f46_ea3d]),
    (Feature::Hhdm, [0x48dc_f1cb_8ad2_b852, 0x6398_4e95_9a98_244b]),
    (Feature::Mp, [0x95a6_7b81_9a1b_857e, 0xa0b6_1b72_3b6a_73e0]),
    (Feature::MemoryMap, [0x67cf_3d9d_378a_806f, 0xe304_acdf_c50c_3c62]),
    (Feature::ExecutableFile, [0xad97_e90e_83f1_ed67, 0x31eb_5d1c_5ff2_3b69]),
    (Feature::ExecutableCommandLine, [0x4b16_1536_e598_651e, 0xb390_ad4a_2f1f_303a]),
    (Feature::Modules, [0x3e7e_2797_02be_32af, 0xca1c_4f3b_d128_0cee]),
    (Feature::Rsdp, [0xc5e7_7b6b_397e_7b43, 0x2763_7845_accd_cf3c]),
    (Feature::DateAtBoot, [0x5027_46e1_84c0_88aa, 0xfbc5_ec83_e632_7893]),
    (Feature::ExecutableAddress, [0x71ba_7686_3cc5_5f63, 0xb264_4a48_c516_a487]),
];

/// MP request and response flag: x2APIC mode wanted, or on.
pub const MP_X2APIC: u64 = 1;
/// The lowest address that the protocol lets a kernel be linked at.
pub const LOWEST_KERNEL_ADDRESS: u64 = 0xffff_ffff_8000_0000;
/// The least stack that a CPU is given, in bytes.
pub const LEAST_STACK: u64 = 64 * 1024;

/// A response that is its revision and up to three numbers or pointers; most are.
#[repr(C)]
pub struct Words {
    /// Revision of the response.
    pub revision: u64,
    /// The rest, by feature.
    pub values: [u64; 3],
}

/// Response to MP.
#[repr(C)]
pub struct MpResponse {
    /// Revision of the response.
    pub revision: u64,
    /// [`MP_X2APIC`].
    pub flags: u32,
    /// APIC id of the CPU that enters the kernel.
    pub bsp_lapic_id: u32,
    /// How many CPUs `cpus` lists, the boot CPU among them.
    pub cpu_count: u64,
    /// Array of pointers to [`MpInfo`].
    pub cpus: u64,
}

/// One CPU.
#[repr(C)]
pub struct MpInfo {
    /// ACPI processor UID.
    pub processor_id: u32,
    /// Local APIC id.
    pub lapic_id: u32,
    /// Unused.
    pub reserved: u64,
    /// The kernel writes where the CPU is to go; the parked CPU polls it.
    pub goto_address: core::sync::atomic::AtomicU64,
    /// For the kernel.
    pub extra_argument: u64,
}

/// One memory map entry.
#[repr(C)]
pub struct MemoryMapEntry {
    /// First byte's physical address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// `kcore::boot_memory_map::Kind` has the protocol's numbers.
    pub kind: u64,
}

/// A loaded file.
#[repr(C)]
#[derive(Default)]
pub struct File {
    /// Revision of this structure.
    pub revision: u64,
    /// Where its bytes are; a multiple of the page size.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Zero-terminated path.
    pub path: u64,
    /// Zero-terminated command line.
    pub command_line: u64,
    /// 0: generic.
    pub media_type: u32,
    /// Unused, then TFTP address and port, partition, MBR id: none of them.
    pub origin: [u32; 5],
    /// GPT disk, GPT partition and partition ids: none.
    pub identifiers: [[u64; 2]; 3],
}

// The layouts are the protocol's, which has no names for sizes.
const _: () = {
    assert!(size_of::<MpInfo>() == 32);
    assert!(size_of::<MpResponse>() == 32);
    assert!(size_of::<MemoryMapEntry>() == 24);
    assert!(size_of::<File>() == 112);
};
