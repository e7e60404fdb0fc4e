//! run: see `guest::program::run`.
#![no_main]

guest::program!(guest::program::run::main);
