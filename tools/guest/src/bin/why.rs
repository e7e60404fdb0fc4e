//! why: see `guest::program::why`.
#![no_main]

guest::program!(guest::program::why::main);
