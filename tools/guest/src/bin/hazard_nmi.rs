//! hazard_nmi: see `guest::program::hazard_nmi`.
#![no_main]

guest::program!(guest::program::hazard_nmi::main);
