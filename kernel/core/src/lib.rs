//! kcore: every decision and every parser of the kernel, as pure safe code without hardware.
//!
//! A function here takes values and returns what is to be done; the kernel crate does it. The same files
//! are compiled into the kernel, the host tests, loom and Miri.
#![cfg_attr(not(any(test, loom)), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod atomics;
pub mod boot_memory_map;
pub mod buddy;
pub mod byte_ring;
pub mod cmdline;
pub mod context_tracking;
pub mod cpio;
pub mod cpu_set;
pub mod debug_register;
pub mod deferred_free;
pub mod elf;
pub mod epoll;
pub mod float_error;
pub mod futex_op;
pub mod histogram;
pub mod interruption;
pub mod interval_timer;
pub mod ipi_ledger;
pub mod isolate_request;
pub mod kernel_return;
pub mod latency;
pub mod lease;
pub mod lease_blocker;
pub mod lease_page;
pub mod limine_cfg;
pub mod line_discipline;
pub mod machine_check;
pub mod map_memory;
pub mod missing_calls;
pub mod oom;
pub mod packet_mode;
pub mod pairing_heap;
pub mod posted_work;
pub mod priority_inheritance;
pub mod ptrace;
pub mod rcu;
pub mod restartable;
pub mod run_queue;
pub mod saved_names;
pub mod srcu;
pub mod static_key;
pub mod system_call_name;
pub mod task_state;
pub mod text_poke;
pub mod tick;
pub mod timer_queue;
pub mod trace_conformance;
pub mod trace_event;
pub mod trace_frame;
pub mod trace_ring;
pub mod vma;
pub mod vulnerability;
pub mod wall_clock;
pub mod watch_request;
pub mod watchdog;
