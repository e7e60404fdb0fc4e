//! Seeded defects in assembly text, for `make mutants`: the kernel as it is built otherwise has none. In Rust code `cfg!(mutant = "…")`
//! serves. The list is kernel/core/tests/MUTANTS.md.

/// `$text`; in the kernel that is built with mutant `$name`, `$instead`.
macro_rules! or_mutant {
    ($text:expr, $name:tt, $instead:expr) => {
        cfg_select! {
            mutant = $name => { $instead }
            _ => { $text }
        }
    };
}
