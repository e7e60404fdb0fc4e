//! The host commands behind make, one file a command, and what the scenarios need to boot a guest.

pub mod accelerator;
pub mod archive;
pub mod bench;
pub mod budgets;
pub mod check_arrows;
pub mod check_elf;
pub mod check_files;
pub mod failure;
pub mod image;
pub mod iso;
pub mod limine;
pub mod mutants;
pub mod ovmf;
pub mod plugin;
pub mod qemu;
pub mod run;
pub mod settings;
pub mod slot;
pub mod symbolize;
pub mod terminal;
pub mod trace;
pub mod tree;
