//! bench: see `guest::program::bench`.
#![no_main]

guest::program!(guest::program::bench::main);
