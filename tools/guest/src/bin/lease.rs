//! lease: see `guest::program::lease`.
#![no_main]

guest::program!(guest::program::lease::main);
