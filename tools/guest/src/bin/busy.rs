//! busy: see `guest::program::busy`.
#![no_main]

guest::program!(guest::program::busy::main);
