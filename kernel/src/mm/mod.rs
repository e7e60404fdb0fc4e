//! Memory: page frames, the kernel's own map, heap, kernel stacks, address spaces, copies from and to user memory.

pub mod address_space;
pub mod frame;
pub mod heap;
pub mod kernel_map;
pub mod page_cache;
pub mod stack;
pub mod user_copy;
pub mod user_page_table;
