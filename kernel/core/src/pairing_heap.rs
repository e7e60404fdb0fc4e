//! pairing_heap
