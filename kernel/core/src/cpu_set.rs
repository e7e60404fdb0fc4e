//! cpu_set
