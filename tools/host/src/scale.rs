//! `host bench --scale` (`make bench SCALE=1`): what a boot costs with few and with many CPUs, in instructions of all CPUs from the
//! kernel's entry to the first instruction of /init, as the counting plugin sees them. Called by `bench`.

use crate::failure::Failure;
use crate::image;
use crate::measured;
use crate::plugin::{self, Boot, Counts};
use crate::qemu::{End, Medium};
use crate::settings::{Accel, Settings, XAPIC_CPUS};
use crate::tree::{Profile, Tree};
use std::time::Duration;

/// Safety net for one boot.
const LIMIT: Duration = Duration::from_secs(120);
/// How many CPUs the machines have.
const CPUS: [u32; 7] = [1, 2, 4, 16, 64, 128, XAPIC_CPUS];
/// The first program ends the machine, so that nothing but the boot is run.
const CMDLINE: &str = "trace_event= nowatchdog init=/bin/poweroff";

/// Boots each machine and prints a row for it.
pub fn main(tree: &Tree) -> Result<(), Failure> {
    if let Some(why) = plugin::why_not() {
        return Err(Failure::Usage(format!("SCALE=1: it needs the counting plugin: {why}")));
    }
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    println!("instructions from the kernel's entry to /init   of the boot CPU   of another CPU   of all, for each CPU");
    for cpus in CPUS {
        println!("{}", row(cpus, &boot(tree, cpus, &archive)?));
    }
    Ok(())
}

fn boot(tree: &Tree, smp: u32, archive: &[u8]) -> Result<Vec<Boot>, Failure> {
    let mut settings =
        Settings { accel: Accel::Tcg, icount: true, smp, cmdline: CMDLINE.into(), ..Settings::default() };
    let counts = Counts::new()?;
    settings.qemu_args.extend(plugin::arguments(&plugin::build(tree)?, &counts.path()));
    let (end, log) = measured::run(tree, &settings, Medium::Archive(archive), LIMIT, &format!("{smp} CPUs"))?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("{smp} CPUs: the guest ended by {end:?}")));
    }
    Ok(plugin::parse(&counts.text()?)?.boot)
}

fn row(cpus: u32, boot: &[Boot]) -> String {
    let all: u64 = boot.iter().map(|b| b.kernel).sum();
    let first = boot.iter().find(|b| b.vcpu == 0).map_or(0, |b| b.kernel);
    let others = u64::from(cpus).saturating_sub(1);
    let another = (all - first).checked_div(others).map_or("-".into(), |n| n.to_string());
    format!("{cpus:>4} CPUs {all:>37} {first:>17} {another:>16} {:>22}", all / u64::from(cpus.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shares_out_what_all_did() {
        let boot: Vec<Boot> =
            [(0, 100), (1, 10), (2, 30)].map(|(vcpu, kernel)| Boot { vcpu, loader: 7, kernel }).into();
        let words = |text: String| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(row(3, &boot)), ["3", "CPUs", "140", "100", "20", "46"]);
        assert_eq!(words(row(1, &boot[..1])), ["1", "CPUs", "100", "100", "-", "100"]);
    }
}
