//! noise: see `guest::program::noise`.
#![no_main]

guest::program!(guest::program::noise::main);
