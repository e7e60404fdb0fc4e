//! The command line: no text panics, the promises about CPUs hold, words are found as a slow reading finds them.
//! A failing case is printed with its seed by proptest.

use kcore::cmdline::{MAX_COMPLAINTS, MAX_INIT_WORDS, params, resolve};
use kcore::cpu_set::CpuSet;
use proptest::prelude::*;

fn lines() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "(nohz_full|isolcpus|rcu-nocbs|irqaffinity)=(nohz,|domain,|managed_irq,|x,){0,2}[0-9N,-]{0,6}",
        "(nohz_full|isolcpus)=(all|[0-3]-[0-9])",
        "(maxcpus|hz|loglevel|panic)=-?[0-9x]{0,6}",
        "(nosmp|quiet|init|tp_printk|--|rw|console)(=[a-z\"]{0,4})?",
        "[a-zé.=\"-]{0,10}",
        "\\PC{0,8}",
    ];
    prop::collection::vec(word, 0..30).prop_map(|words| words.join(" "))
}

/// Splits at blanks outside quotes, character by character.
fn slow_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        if c == ' ' && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            quoted ^= c == '"';
            word.push(c);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold(line in lines(), nr_cpus in prop_oneof![1..8u32, any::<u32>()], boot in 0..4u32) {
        let boot_cpu = boot.min(nr_cpus.saturating_sub(1));
        let all = CpuSet::full(nr_cpus.max(1));
        let params = resolve(&line, nr_cpus, boot_cpu);
        for set in [params.nohz_full, params.isolated_domain, params.isolated_managed_irq] {
            prop_assert!(!set.contains(boot_cpu) && set.is_subset(&all));
        }
        prop_assert!(params.housekeeping.contains(boot_cpu) && params.irq_affinity.contains(boot_cpu));
        prop_assert_eq!(params.housekeeping, all.difference(&params.isolated()));
        prop_assert!(params.nohz_full.is_subset(&params.rcu_nocbs) && params.rcu_nocbs.is_subset(&all));
        prop_assert!(params.irq_affinity.is_subset(&all));
        prop_assert!((10..=10_000).contains(&params.hz) && params.loglevel <= 15);
        prop_assert!((1..=nr_cpus.max(1)).contains(&params.cpus_to_start(nr_cpus)));
        prop_assert!(params.complaints.len() <= MAX_COMPLAINTS && params.init_args.len() <= MAX_INIT_WORDS);
        for complaint in &params.complaints {
            let text = complaint.to_string();
            prop_assert!(!text.contains('\n') && text.contains(": "), "{}", text);
        }
        for (at, word) in params.init_env.iter().enumerate() {
            prop_assert!(word.value.is_some());
            prop_assert!(params.init_env[..at].iter().all(|other| other.name != word.name));
        }
    }

    #[test]
    fn words_are_those_of_a_slow_reading(line in "[a=\" ]{0,24}") {
        let expected = slow_words(&line);
        let found: Vec<_> = params(&line).collect();
        prop_assert_eq!(found.len(), expected.len());
        for (param, word) in found.iter().zip(&expected) {
            let bare = |text: &str| text.replace('"', "");
            prop_assert_eq!(bare(&param.to_string()), bare(word));
        }
    }

    #[test]
    fn a_wrong_list_is_never_silent(list in "[0-9N,:/a-]{0,8}") {
        let line = format!("nohz_full={list}");
        let params = resolve(&line, 4, 0);
        let read = kcore::cpu_set::parse_list(&list, 4);
        let taken_as_is = read == Ok(params.nohz_full) && !params.nohz_full.is_empty();
        prop_assert_eq!(params.complaints.is_empty(), taken_as_is);
    }
}
