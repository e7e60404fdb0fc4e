//! enomem: see `guest::program::enomem`.
#![no_main]

guest::program!(guest::program::enomem::main);
