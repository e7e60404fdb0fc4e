//! bench
use crate::entry::{Args, Outcome};
/// bench
pub fn main(_: &Args) -> Outcome {
    Ok(0)
}
