//! log: see `guest::program::log`.
#![no_main]

guest::program!(guest::program::log::main);
