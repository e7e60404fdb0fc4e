//! isolate: see `guest::program::isolate`.
#![no_main]

guest::program!(guest::program::isolate::main);
