//! What an empty map holds on to.
//!
//! Called by who keeps a table that is mostly empty, under its lock.

use alloc::collections::BTreeMap;

/// A map that has become empty keeps the node that its first entry needed; here that goes back too, so that memory in use is what it was.
pub fn give_back<K, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}
