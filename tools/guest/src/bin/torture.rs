//! torture: see `guest::program::torture`.
#![no_main]

guest::program!(guest::program::torture::main);
