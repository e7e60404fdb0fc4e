//! init: see `guest::program::init`.
#![no_main]

guest::program!(guest::program::init::main);
