//! System calls about memory policies: there is one node, so every policy that names it, or none, is the one that there is.
//!
//! Source: get_mempolicy(2), set_mempolicy(2), mbind(2).

use super::table::Calls;
use crate::errno::{EFAULT, EINVAL, Errno};
use crate::mm::user_copy;
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(237, mbind), (238, set_mempolicy), (239, get_mempolicy)];

/// MPOL_DEFAULT to MPOL_LOCAL, and the highest node number that a mask may have room for.
const MODES: u64 = 5;
const MOST_NODES: u64 = 4096;
const DEFAULT: u64 = 0;
const LOCAL: u64 = 4;

/// A mode with the mask at `at`, which has room for `most` - 1 nodes.
fn check(mode: u64, at: u64, most: u64) -> Result<(), Errno> {
    const MODE_FLAGS: u64 = 0xe000;
    let mode = mode & !MODE_FLAGS;
    if mode >= MODES || most > MOST_NODES {
        return Err(EINVAL);
    }
    let mut named = false;
    if at != 0 {
        for i in 0..most.saturating_sub(1).div_ceil(64) {
            let word: u64 = user_copy::read(at.checked_add(i * 8).ok_or(EFAULT)?)?;
            if word & !1 != 0 || i > 0 && word != 0 {
                return Err(EINVAL);
            }
            named |= word != 0;
        }
    }
    match mode {
        DEFAULT | LOCAL if named => Err(EINVAL),
        2 | 3 if !named => Err(EINVAL),
        _ => Ok(()),
    }
}

system_call! {
    /// set_mempolicy(2)
    set_mempolicy(mode, mask, most) {
        check(mode, mask, most)?;
        Ok(0)
    }
}
system_call! {
    /// mbind(2)
    mbind(address, len, mode, mask, most, flags) {
        if !address.is_multiple_of(4096) || flags & !7 != 0 || address.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        check(mode, mask, most)?;
        Ok(0)
    }
}
system_call! {
    /// get_mempolicy(2): the default everywhere; memory is allowed on node 0.
    get_mempolicy(mode, mask, most, address, flags) {
        const NODE: u64 = 1;
        const ADDRESS: u64 = 2;
        const ALLOWED: u64 = 4;
        let by_address = flags & ADDRESS != 0;
        if flags & !7 != 0 || flags & ALLOWED != 0 && flags != ALLOWED || address != 0 && !by_address || most > MOST_NODES {
            return Err(EINVAL);
        }
        // Node of the next page: only an interleaving policy has one.
        if flags & NODE != 0 && !by_address {
            return Err(EINVAL);
        }
        if mask != 0 && most == 0 {
            return Err(EINVAL);
        }
        if mode != 0 {
            user_copy::write(mode, &0u32)?;
        }
        if mask != 0 {
            for i in 0..most.div_ceil(64) {
                let word = u64::from(i == 0 && flags & ALLOWED != 0);
                user_copy::write(mask.checked_add(i * 8).ok_or(EFAULT)?, &word)?;
            }
        }
        Ok(0)
    }
}
