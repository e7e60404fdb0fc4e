//! cpus: see `guest::program::cpus`.
#![no_main]

guest::program!(guest::program::cpus::main);
