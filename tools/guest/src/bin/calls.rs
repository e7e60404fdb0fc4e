//! calls: see `guest::program::calls`.
#![no_main]

guest::program!(guest::program::calls::main);
