//! Hardware, one file a device or register group; and where the linker script puts what runs on it. Imports nothing of the kernel but what is beside it.

pub mod acpi;
pub mod apic;
pub mod cpu_features;
pub mod cpu_head;
pub mod debug_registers;
pub mod fpu;
pub mod gdt;
pub mod idt;
pub mod ioapic;
pub mod irq_flag;
pub mod kernel_text;
pub mod machine_check;
pub mod msr;
pub mod page_table;
pub mod pit;
pub mod power;
pub mod segment_base;
pub mod serial;
pub mod tsc;
