//! sh: see `guest::shell`.
#![no_main]

guest::program!(guest::shell::main);
