//! spin: see `guest::program::spin`.
#![no_main]

guest::program!(guest::program::spin::main);
