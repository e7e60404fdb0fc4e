//! box: small programs in one file. The name that it is called by says which one; `box NAME …` works too.
//!
//! The image has /bin/NAME as a symbolic link to box for every name of `box --list`.

mod cat;
mod cksum;
mod crash;
mod dmesg;
mod echo;
mod exhaust;
mod free;
mod ipi;
mod ls;
mod missing;
mod power;
mod ps;
mod rcu;
mod respawn;
mod sleep;
mod uname;
mod unmap;

use crate::entry::{Args, Failure, Main, Outcome, run_words};
use crate::output;
use crate::program;

/// The programs by name, in alphabetical order.
pub const APPLETS: &[(&str, Main)] = &[
    ("burn", sleep::burn),
    ("cat", cat::main),
    ("cksum", cksum::main),
    ("crash", crash::main),
    ("dmesg", dmesg::main),
    ("echo", echo::main),
    ("exhaust", exhaust::main),
    ("false", echo::no),
    ("free", free::main),
    ("hazard_32_bit", program::hazard_32_bit::main),
    ("hazard_bad_iret", program::hazard_bad_iret::main),
    ("hazard_flags", program::hazard_flags::main),
    ("hazard_frame", program::hazard_frame::main),
    ("hazard_frame_race", program::hazard_frame_race::main),
    ("hazard_gs_base", program::hazard_gs_base::main),
    ("hazard_kernel_memory", program::hazard_kernel_memory::main),
    ("hazard_mce", program::hazard_mce::main),
    ("hazard_pop_ss", program::hazard_pop_ss::main),
    ("hazard_step", program::hazard_step::main),
    ("hazard_sysret", program::hazard_sysret::main),
    ("hazard_watch", program::hazard_watch::main),
    ("ipi", ipi::main),
    ("ls", ls::main),
    ("missing", missing::main),
    ("poweroff", power::power_off),
    ("ps", ps::main),
    ("rcu", rcu::main),
    ("reboot", power::restart),
    ("respawn", respawn::main),
    ("sleep", sleep::main),
    ("true", echo::yes),
    ("uname", uname::main),
    ("unmap", unmap::main),
    ("uptime", power::uptime),
];

/// Runs the program that the name says; `box --list` writes the names.
pub fn main(args: &Args) -> Outcome {
    if let Some(applet) = find(args.name()) {
        return applet(args);
    }
    match args.rest().first().map(String::as_str) {
        Some("--list") => {
            let names: String = APPLETS.iter().map(|(name, _)| format!("{name}\n")).collect();
            output::write_out(names.as_bytes());
            Ok(0)
        }
        Some(name) => match find(name) {
            Some(applet) => Ok(run_words(args.shifted(), applet)),
            None => Err(Failure { status: 127, text: format!("no program {name} (box --list shows them)") }),
        },
        None => Err(Failure::usage("usage: box --list | box NAME [ARGUMENT…]")),
    }
}

fn find(name: &str) -> Option<Main> {
    APPLETS.iter().find(|(applet, _)| *applet == name).map(|(_, main)| *main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_differ() {
        assert!(APPLETS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let args = Args::new(vec!["box".into(), "nonsense".into()]);
        assert!(main(&args).unwrap_err().text.contains("nonsense"));
    }
}
