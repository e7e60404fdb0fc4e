//! context_tracking
