//! The way in: PVH note, multiboot2 header, and the switch from 32-bit flat mode to long mode.
//!
//! Both protocols enter `boot_entry32` with paging off and EBX at their information block; EAX tells them
//! apart (multiboot2 puts its magic there, under PVH it is undefined). Steps:
//! 1. Interrupts off, own stack. 2. Boot page tables: the first 4 GiB at 0 and at the direct map, 2 MiB pages.
//! 3. PAE, EFER.LME, paging. 4. The protocol's GDT, a 64-bit code segment. 5. `boot_main(eax, ebx)`.
//!
//! The multiboot1 header is left out on purpose: QEMU would prefer it to PVH and refuse an ELF64.
//! Source: Xen docs/misc/pvh.pandoc; Multiboot2 Specification 3.1 and 3.3; Intel SDM 3A "Initializing IA-32e Mode".

use core::arch::global_asm;

/// Where the boot page tables and the kernel's tables show physical memory: the Limine protocol's HHDM.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// What the boot page tables map, and so what the loader can reach: 4 GiB.
pub const REACHABLE_END: u64 = 1 << 32;
/// The direct map's slot in a page-map level 4.
const DIRECT_MAP_SLOT: u64 = DIRECT_MAP >> 39 & 511;

/// Selectors of the GDT that the Limine protocol prescribes ("x86-64 machine state at entry").
pub const CODE_SELECTOR: u16 = 0x28;
/// The 64-bit data segment.
pub const DATA_SELECTOR: u16 = 0x30;

/// Multiboot2: the magic that EAX holds at entry.
pub const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;
const MULTIBOOT2_HEADER_MAGIC: u32 = 0xe852_50d6;
const MULTIBOOT2_HEADER_LENGTH: u32 = 32;
const MULTIBOOT2_CHECKSUM: u32 = 0u32.wrapping_sub(MULTIBOOT2_HEADER_MAGIC).wrapping_sub(MULTIBOOT2_HEADER_LENGTH);
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// CR4 at kernel entry: PAE alone.
pub const CR4: u64 = 0x20;
/// CR0 at kernel entry: PG, WP, ET, PE.
pub const CR0: u64 = 0x8001_0011;
const EFER: u32 = 0xc000_0080;
const EFER_LONG_MODE: u32 = 0x100;

global_asm!(
    r#"
    .section .multiboot2, "a"
    .balign 8
    .long {mb2_magic}, 0, {mb2_length}, {mb2_checksum}
    .short 6, 0                         /* modules on page boundaries */
    .long 8
    .short 0, 0                         /* end tag */
    .long 8

    .section .note.Xen, "a"
    .balign 4
    .long 4, 8, {phys32_entry}
    .asciz "Xen"
    .quad boot_entry32

    .section .text.entry32, "ax"
    .code32
    .global boot_entry32
boot_entry32:
    cli                                 /* 1 */
    cld
    lea esp, [boot_stack_end]
    mov edi, eax
    mov esi, ebx

    lea eax, [boot_pdpt + 3]            /* 2: present, writable */
    mov dword ptr [boot_pml4], eax
    mov dword ptr [boot_pml4 + {direct_map_slot} * 8], eax
    lea eax, [boot_directories + 3]
    xor ecx, ecx
2:  mov dword ptr [boot_pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 2b
    mov eax, 0x83                       /* present, writable, large */
    xor ecx, ecx
3:  mov dword ptr [boot_directories + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 3b

    mov eax, {cr4}                      /* 3 */
    mov cr4, eax
    lea eax, [boot_pml4]
    mov cr3, eax
    mov ecx, {efer}
    rdmsr
    or eax, {efer_long_mode}
    wrmsr
    mov eax, {cr0}
    mov cr0, eax

    lgdt [boot_gdt_pointer]             /* 4 */
    push {code}
    lea eax, [boot_entry64]
    push eax
    retf

    .code64
boot_entry64:
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov edi, edi                        /* 5: upper halves are undefined after the switch */
    mov esi, esi
    lea rsp, [rip + boot_stack_end]
    xor ebp, ebp
    call {boot_main}
    ud2

    .section .data.gdt, "aw"
    .balign 16
    .global boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00009b000000ffff            /* 0x08 16-bit code */
    .quad 0x000093000000ffff            /* 0x10 16-bit data */
    .quad 0x00cf9b000000ffff            /* 0x18 32-bit code */
    .quad 0x00cf93000000ffff            /* 0x20 32-bit data */
    .quad 0x00209b0000000000            /* 0x28 64-bit code */
    .quad 0x0000930000000000            /* 0x30 64-bit data */
boot_gdt_end:
    .global boot_gdt_pointer
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

    .section .bss.boot_tables, "aw", @nobits
    .balign 4096
    .global boot_pml4
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_directories:
    .skip 4 * 4096
boot_stack:
    .skip 128 * 1024
boot_stack_end:
    .text
"#,
    mb2_magic = const MULTIBOOT2_HEADER_MAGIC,
    mb2_length = const MULTIBOOT2_HEADER_LENGTH,
    mb2_checksum = const MULTIBOOT2_CHECKSUM,
    phys32_entry = const XEN_ELFNOTE_PHYS32_ENTRY,
    direct_map_slot = const DIRECT_MAP_SLOT,
    cr4 = const CR4,
    cr0 = const CR0,
    efer = const EFER,
    efer_long_mode = const EFER_LONG_MODE,
    code = const CODE_SELECTOR,
    data = const DATA_SELECTOR,
    boot_main = sym crate::boot_main,
);
