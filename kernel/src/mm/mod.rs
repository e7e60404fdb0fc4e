//! Memory: page frames, the kernel's own map, heap, kernel stacks, address spaces, copies from and to user memory.

pub mod address_space;
mod address_space_copy;
pub mod failure;
pub mod file_pages;
mod foreign;
pub mod frame;
pub mod heap;
pub mod kernel_map;
mod mapped_content;
mod page_fault;
mod residence;
pub mod special;
pub mod stack;
pub mod tlb_flush;
pub mod user_attempt;
pub mod user_context;
pub mod user_copy;
pub mod user_page_table;
pub mod vdso;
