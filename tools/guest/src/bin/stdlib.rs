//! stdlib: see `guest::program::stdlib`.
#![no_main]

guest::program!(guest::program::stdlib::main);
