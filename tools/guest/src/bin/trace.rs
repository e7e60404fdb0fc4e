//! trace: see `guest::program::trace`.
#![no_main]

guest::program!(guest::program::trace::main);
