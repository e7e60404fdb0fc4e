//! trace_ring
