//! box: the small programs in one file, see `guest::applet`.
#![no_main]

guest::program!(guest::applet::main);
