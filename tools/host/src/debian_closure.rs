//! Which Debian packages a program needs: those named and all that they depend on. Used by `debian_root`.
//!
//! Where all are installed, dpkg's own records say it, without apt and without a network. Else apt says what it would install on a system
//! that has nothing. Neither names a release, so the same words serve Debian 12 and 13.

use crate::debian;
use crate::failure::Failure;
use std::collections::{HashMap, HashSet};
use std::process::Command;

/// What dpkg says of each package: its name, its state, what it depends on, and the names that it provides.
const FORMAT: &str = "${Package}\t${db:Status-Abbrev}\t${Pre-Depends}, ${Depends}\t${Provides}\n";

/// `packages` and what they depend on.
pub fn of(packages: &[&str]) -> Result<Vec<String>, Failure> {
    let records = debian::output(Command::new("dpkg-query").args(["-W", "-f", FORMAT])).map_err(Failure::Usage)?;
    match installed(&records, packages) {
        Some(all) => Ok(all),
        None => simulated(packages),
    }
}

/// Whether `package` is installed.
pub fn is_installed(package: &str) -> bool {
    let state = debian::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}", package]));
    state.is_ok_and(|s| s.starts_with("ii"))
}

/// The same from dpkg's records; `None` if one of them is not installed.
fn installed(records: &str, packages: &[&str]) -> Option<Vec<String>> {
    let mut needs: HashMap<&str, &str> = HashMap::new();
    let mut provided: HashMap<&str, &str> = HashMap::new();
    for line in records.lines() {
        let mut columns = line.split('\t');
        let (name, state) = (columns.next()?, columns.next()?);
        let (depends, provides) = (columns.next()?, columns.next()?);
        if state.starts_with("ii") {
            needs.insert(name, depends);
            provided.extend(names(provides).map(|other| (other, name)));
        }
    }
    let known = |name: &str| needs.get_key_value(name).map(|(n, _)| *n).or_else(|| provided.get(name).copied());
    let mut all: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    let mut open: Vec<&str> = packages.iter().rev().copied().map(known).collect::<Option<_>>()?;
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            all.push(name);
            // Of alternatives the first that is there.
            let wanted = needs[name].split(',').map(str::trim).filter(|w| !w.is_empty());
            let found = wanted.map(|word| word.split('|').find_map(|one| known(names(one).next()?)));
            open.extend(found.collect::<Option<Vec<_>>>()?);
        }
    }
    Some(all.into_iter().map(String::from).collect())
}

/// The names in a list of packages, without versions and architectures.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter_map(|item| item.split_whitespace().next()?.split(':').next())
}

/// The same from apt.
fn simulated(packages: &[&str]) -> Result<Vec<String>, Failure> {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-s", "-o", "Dir::State::status=/dev/null", "--no-install-recommends", "install"]);
    let text = debian::output(command.args(packages))
        .map_err(|why| Failure::Usage(format!("{}: {why}; `make setup` installs them", packages.join(" "))))?;
    Ok(text.lines().filter_map(|l| l.strip_prefix("Inst ")?.split_whitespace().next().map(String::from)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = "shell\tii \tlibc (>= 2), base, \tsh\n\
        libc\tii \t, libgcc:any | other\t\n\
        libgcc\tii \t, \tlibgcc-abi (= 1)\n\
        awk-m\tii \t, libc\tawk\n\
        base\tii \tawk, \t\n\
        gone\trc \t, libc\t\n\
        broken\tii \t, gone\t\n";

    #[test]
    fn installed_packages_bring_what_they_need() {
        let all = installed(RECORDS, &["shell"]).unwrap();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(sorted, ["awk-m", "base", "libc", "libgcc", "shell"]);
        assert_eq!(all[0], "shell");
        assert_eq!(installed(RECORDS, &["libgcc-abi"]).unwrap(), ["libgcc"]);
        assert_eq!(installed(RECORDS, &["gone"]), None);
        assert_eq!(installed(RECORDS, &["broken"]), None);
        assert_eq!(installed(RECORDS, &["shell", "missing"]), None);
    }
}
