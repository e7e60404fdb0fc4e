//! storm: see `guest::program::storm`.
#![no_main]

guest::program!(guest::program::storm::main);
