//! /sys/kernel/quiesce/memory: what is in use, so that a load can be seen to give everything back.
//!
//! `frames` are those that belong to programs, files and live tasks: without what the kernel keeps for the next one (chunks of the heap,
//! free stacks, copies of read-only file pages, its own page tables). `heap_bytes` are in use within the heap; the `copies` need a few each.

use crate::errno::Errno;
use crate::mm::{file_pages, frame, heap, kernel_map, stack};
use crate::sched::task;
use alloc::string::String;
use core::fmt::Write;

/// `tasks=N frames=N heap_bytes=N copies=N`. Taken at different moments: they belong together while nothing runs.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let (heap_bytes, chunk_frames) = heap::usage();
    let kept = chunk_frames
        + stack::counts().0 * stack::TASK_STACK_PAGES
        + file_pages::kept_frames()
        + kernel_map::table_frames();
    let frames = frame::used_frames().saturating_sub(kept);
    let copies = file_pages::kept_frames();
    let _ = writeln!(out, "tasks={} frames={frames} heap_bytes={heap_bytes} copies={copies}", task::count());
    Ok(())
}
