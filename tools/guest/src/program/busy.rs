//! busy
use crate::entry::{Args, Outcome};
/// busy
pub fn main(_: &Args) -> Outcome {
    Ok(0)
}
