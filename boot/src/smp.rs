//! Starts the other CPUs and parks them, each on its own stack, until the kernel writes their goto_address.
//!
//! A CPU is known by its APIC id, never by the order of arrival. Steps of an application processor:
//! 1. real mode in the trampoline page: GDT, PAE, boot page tables, EFER, straight to long mode;
//! 2. execution moves to the direct map; PAT; x2APIC mode if wanted; 3. its slot is found by APIC id;
//! 4. the kernel's page tables, the stack; the slot says "up"; 5. it spins with PAUSE on goto_address;
//! 6. RDI = its MP information, all else zero, jump.
//!
//! Source: Intel SDM 3A "MP Initialization Protocol Algorithm"; Limine protocol "MP (multiprocessor) Feature".

use crate::apic::{INIT, LocalApic, STARTUP};
use crate::entry::{CODE_SELECTOR, CR0, CR4, DATA_SELECTOR, DIRECT_MAP};
use crate::physical_memory::{PhysicalMemory, direct_map_of};
use crate::protocol::MpInfo;
use crate::{fail, pit};
use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use kcore::boot_memory_map::{Kind, PAGE_SIZE};

/// How long the CPUs together may take to come up. Generous: a loaded host may run a virtual CPU late.
const LIMIT_US: u64 = 20_000_000;
const INIT_WAIT_US: u64 = 10_000;
const STARTUP_WAIT_US: u64 = 200;
/// Start-up vectors are pages below 1 MiB; the last KiBs there belong to firmware.
const TRAMPOLINE_END: u64 = 0xa_0000;

/// A CPU to start.
#[repr(C)]
struct Slot {
    /// Its APIC id.
    apic_id: u32,
    /// 1 once it runs on the kernel's page tables and its stack.
    is_up: AtomicU32,
    /// Direct-map address behind its stack.
    stack_end: u64,
    /// Direct-map address of its [`MpInfo`].
    information: u64,
}

/// What the assembly reads; written once before the first start-up.
#[repr(C)]
struct Park {
    slots: u64,
    count: u64,
    page_tables: u64,
    use_x2apic: u64,
}

unsafe extern "C" {
    static mut boot_park: Park;
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// Starts the CPUs of `cpus`, all but the one that runs this, and returns when all are parked. `root` are the kernel's
/// page tables.
pub fn start(apic: &LocalApic, memory: &mut PhysicalMemory, cpus: &'static [MpInfo], stack_size: u64, root: u64) {
    let own_id = apic.id();
    let mut slots = Vec::with_capacity(cpus.len());
    for cpu in cpus.iter().filter(|cpu| cpu.lapic_id != own_id) {
        let stack = take_stack(memory, stack_size);
        let is_up = AtomicU32::new(0);
        slots.push(Slot { apic_id: cpu.lapic_id, is_up, stack_end: stack, information: direct_map_of(cpu) });
    }
    if slots.is_empty() {
        return;
    }
    let slots: &'static [Slot] = slots.leak();
    let park = Park {
        slots: direct_map_of(slots),
        count: slots.len() as u64,
        page_tables: root,
        use_x2apic: apic.is_x2apic.into(),
    };
    // SAFETY: 1. `boot_park` is a zeroed, aligned static of Park's size (checked below). 2. No other CPU runs yet.
    unsafe { (&raw mut boot_park).write_volatile(park) };
    let page = write_trampoline(memory);

    let missing = || slots.iter().filter(|slot| slot.is_up.load(Ordering::Acquire) == 0);
    for slot in slots {
        apic.send(slot.apic_id, INIT);
    }
    pit::wait_us(INIT_WAIT_US, || false);
    for _ in 0..2 {
        for slot in missing() {
            apic.send(slot.apic_id, STARTUP | page);
        }
        pit::wait_us(STARTUP_WAIT_US, || missing().next().is_none());
    }
    pit::wait_us(LIMIT_US, || missing().next().is_none());
    if let Some(slot) = missing().next() {
        let up = slots.len() + 1 - missing().count();
        fail!(
            "the CPU with APIC id {} did not come up within {} s; {up} of {} CPUs are up, all are needed",
            slot.apic_id,
            LIMIT_US / 1_000_000,
            slots.len() + 1
        );
    }
}

/// A stack of `size` bytes for one CPU: the direct-map address behind it.
pub fn take_stack(memory: &mut PhysicalMemory, size: u64) -> u64 {
    let stack = memory.take(size, PAGE_SIZE, u64::MAX, Kind::BootloaderReclaimable, "the stack of a CPU");
    stack.direct_map() + stack.bytes.len() as u64
}

/// Copies the trampoline into a page below 1 MiB and returns the page's number.
fn write_trampoline(memory: &mut PhysicalMemory) -> u32 {
    let page = memory.take(PAGE_SIZE, PAGE_SIZE, TRAMPOLINE_END, Kind::BootloaderReclaimable, "starting CPUs");
    // SAFETY: the two symbols enclose the trampoline's bytes in the loader's image, which nobody writes.
    let code = unsafe {
        let start = &raw const ap_trampoline;
        core::slice::from_raw_parts(start, (&raw const ap_trampoline_end).offset_from_unsigned(start))
    };
    page.bytes[..code.len()].copy_from_slice(code);
    (page.base / PAGE_SIZE) as u32
}

global_asm!(
    r#"
    .section .text.ap_trampoline, "ax"
    .code16
    .balign 16
    .global ap_trampoline
ap_trampoline:                          /* 1: CS = page, IP = 0 */
    cli
    cld
    mov ax, cs
    mov ds, ax
    .set ap_gdt_offset, ap_gdt_pointer - ap_trampoline
    .byte 0x66                          /* 32-bit base */
    lgdt [ap_gdt_offset]
    mov eax, {cr4}
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                       /* long mode, no-execute */
    wrmsr
    mov eax, {cr0}
    mov cr0, eax
    .byte 0x66, 0xea                    /* far jump, 32-bit offset */
    .long ap_entry64
    .short {code}
    .balign 8
ap_gdt_pointer:
    .short 7 * 8 - 1
    .long boot_gdt
    .global ap_trampoline_end
ap_trampoline_end:

    .section .text.ap_entry64, "ax"
    .code64
ap_entry64:
    mov eax, {data}                     /* 2 */
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    lea rax, [rip + 2f]
    movabs rbx, {direct_map}
    add rax, rbx
    jmp rax
2:  mov ecx, 0x277                      /* PAT */
    mov eax, {pat_low}
    mov edx, {pat_high}
    wrmsr
    mov ecx, 0x1b                       /* IA32_APIC_BASE */
    rdmsr
    cmp qword ptr [rip + boot_park + {use_x2apic}], 0
    je 3f
    or eax, 0x800
    wrmsr
    or eax, 0x400
    wrmsr
    mov ecx, 0x802
    rdmsr
    jmp 4f
3:  shl rdx, 32
    or rax, rdx
    and rax, -4096
    mov eax, dword ptr [rax + rbx + 0x20]
    shr eax, 24
    mov r8d, eax
    xor eax, eax
    cpuid
    cmp eax, 0xb
    jb 10f
    mov eax, 0xb                        /* EDX = the whole id, of which xAPIC mode keeps 8 bits: */
    xor ecx, ecx
    cpuid
    cmp edx, 0xff                       /* a start-up for CPU 1 reaches CPU 257 too */
    ja 7f
10: mov eax, r8d
4:  mov rsi, [rip + boot_park + {slots}]        /* 3: EAX = APIC id */
    mov rcx, [rip + boot_park + {count}]
5:  cmp dword ptr [rsi + {apic_id}], eax
    je 6f
    add rsi, {slot_size}
    dec rcx
    jnz 5b
7:  hlt                                 /* not one that was called */
    jmp 7b
6:                                      /* 4: the GDT, through the direct map */
    lea rax, [rip + boot_gdt]
    mov rsp, [rsi + {stack_end}]
    push rax
    sub rsp, 2
    mov word ptr [rsp], 7 * 8 - 1
    lgdt [rsp]
    mov rsp, [rsi + {stack_end}]
    mov rax, [rip + boot_park + {page_tables}]
    mov cr3, rax
    mov rdi, [rsi + {information}]
    mov dword ptr [rsi + {is_up}], 1
8:  mov rax, [rdi + {goto_address}]     /* 5 */
    test rax, rax
    jnz 9f
    pause
    jmp 8b
9:  push 0                              /* 6 */
    push rax
    push 2
    popfq
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    ret

    .section .bss.boot_park, "aw", @nobits
    .balign 8
    .global boot_park
boot_park:
    .skip {park_size}
    .text
"#,
    cr4 = const CR4,
    cr0 = const CR0,
    code = const CODE_SELECTOR,
    data = const DATA_SELECTOR,
    direct_map = const DIRECT_MAP,
    pat_low = const crate::handoff::PAT_VALUE as u32,
    pat_high = const (crate::handoff::PAT_VALUE >> 32) as u32,
    use_x2apic = const offset_of!(Park, use_x2apic),
    slots = const offset_of!(Park, slots),
    count = const offset_of!(Park, count),
    page_tables = const offset_of!(Park, page_tables),
    park_size = const size_of::<Park>(),
    apic_id = const offset_of!(Slot, apic_id),
    is_up = const offset_of!(Slot, is_up),
    stack_end = const offset_of!(Slot, stack_end),
    information = const offset_of!(Slot, information),
    slot_size = const size_of::<Slot>(),
    goto_address = const offset_of!(MpInfo, goto_address),
);
