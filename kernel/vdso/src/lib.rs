//! What the kernel and the vDSO agree on. The kernel uses this; the shared object is `object.rs`.
#![no_std]
#![forbid(unsafe_code)]

pub mod page;
