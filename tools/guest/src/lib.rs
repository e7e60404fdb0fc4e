//! Guest programs of Quiesce: static Linux programs that run on the kernel, and the parts that they share.
//!
//! Each program is a function `main(&Args) -> Outcome` in [`program`], [`applet`] or [`shell`], and a few lines in `src/bin`
//! that name it. Programs read the kernel's files under [`kernel_file::root`], so that they can be tried on any Linux.

pub mod applet;
pub mod command_line;
pub mod cpu_list;
pub mod cpu_state;
pub mod duration;
pub mod entry;
pub mod entry_counts;
pub mod fields;
pub mod instruction;
pub mod interruption;
pub mod isolation_state;
pub mod json;
pub mod kernel_file;
pub mod linux;
pub mod noise_report;
pub mod output;
pub mod program;
pub mod shell;
pub mod signal_name;
pub mod tick_state;
pub mod trace_lines;
