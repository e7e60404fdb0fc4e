//! fuzz: see `guest::program::fuzz`.
#![no_main]

guest::program!(guest::program::fuzz::main);
