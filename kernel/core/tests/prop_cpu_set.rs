//! CPU lists: what is printed reads back, what is read agrees with the definition, nothing panics.
//! A failing case is printed with its seed by proptest.

use kcore::cpu_set::{CpuSet, ListErrorKind, MAX_CPUS, parse_list, parse_list_clipped};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn sets() -> impl Strategy<Value = (CpuSet, BTreeSet<u32>)> {
    prop::collection::btree_set(0..MAX_CPUS as u32, 0..80).prop_map(|cpus| (cpus.iter().copied().collect(), cpus))
}

/// One item of a list and the CPUs that it names.
fn items() -> impl Strategy<Value = (String, Vec<u32>)> {
    (0..700u32, 0..100u32, 1..20u32, 0..20u32, 0..3u8).prop_map(|(start, len, group, used, form)| {
        let (end, used) = (start + len, used.min(group));
        match form {
            0 => (format!("{start}"), vec![start]),
            1 => (format!("{start}-{end}"), (start..=end).collect()),
            _ => {
                let cpus = (start..=end).filter(|cpu| (cpu - start) % group < used).collect();
                (format!("{start}-{end}:{used}/{group}"), cpus)
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_lists_read_back((set, cpus) in sets()) {
        prop_assert_eq!(parse_list(&set.to_string(), MAX_CPUS as u32), Ok(set));
        prop_assert!(set.iter().eq(cpus.iter().copied()));
        prop_assert_eq!(set.count() as usize, cpus.len());
        prop_assert_eq!((set.first(), set.last()), (cpus.first().copied(), cpus.last().copied()));
        let mask = set.mask(MAX_CPUS as u32).to_string().replace(',', "");
        for (at, digit) in mask.chars().rev().enumerate() {
            for bit in 0..4 {
                let here = digit.to_digit(16).unwrap() >> bit & 1 == 1;
                prop_assert_eq!(here, cpus.contains(&(at as u32 * 4 + bit)));
            }
        }
    }

    #[test]
    fn algebra((a, in_a) in sets(), (b, in_b) in sets(), n in 0..600u32) {
        prop_assert!(a.union(&b).iter().eq(in_a.union(&in_b).copied()));
        prop_assert!(a.intersection(&b).iter().eq(in_a.intersection(&in_b).copied()));
        prop_assert!(a.difference(&b).iter().eq(in_a.difference(&in_b).copied()));
        prop_assert!(a.complement(n).iter().eq((0..n.min(512)).filter(|cpu| !in_a.contains(cpu))));
        prop_assert_eq!(a.is_subset(&b), in_a.is_subset(&in_b));
        prop_assert_eq!(a.is_empty(), in_a.is_empty());
    }

    #[test]
    fn lists_name_what_they_say(items in prop::collection::vec(items(), 0..6), nr_cpus in 1..=512u32) {
        let list: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
        let list = list.join(",");
        let named: BTreeSet<u32> = items.iter().flat_map(|(_, cpus)| cpus.iter().copied()).collect();
        let (set, error) = parse_list_clipped(&list, nr_cpus).unwrap();
        prop_assert!(set.iter().eq(named.iter().copied().filter(|&cpu| cpu < nr_cpus)));
        match error {
            // The end of a range counts even where the stride leaves it out, as in Linux.
            None => prop_assert_eq!(parse_list(&list, nr_cpus), Ok(set)),
            Some(error) => {
                prop_assert_eq!(parse_list(&list, nr_cpus), Err(error));
                let ListErrorKind::NoSuchCpu { cpu, .. } = error.kind else { panic!("{error}") };
                prop_assert!(cpu >= nr_cpus);
            }
        }
    }

    #[test]
    fn nothing_panics(list in "[-0-9,:/N al\\n]{0,30}|\\PC{0,20}", nr_cpus in any::<u32>()) {
        match parse_list_clipped(&list, nr_cpus) {
            Ok((set, _)) => prop_assert!(set.last().is_none_or(|cpu| cpu < nr_cpus)),
            Err(error) => {
                prop_assert!(error.offset <= list.len() && list.is_char_boundary(error.offset));
                prop_assert!(!error.to_string().is_empty());
            }
        }
        prop_assert!(!CpuSet::full(nr_cpus).mask(nr_cpus).to_string().is_empty());
    }
}
