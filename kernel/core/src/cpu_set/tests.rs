//! Unit tests of CPU sets. Random ones are in tests/prop_cpu_set.rs.

use super::*;
use alloc::string::ToString;

fn cpus(list: &[u32]) -> CpuSet {
    list.iter().copied().collect()
}

#[test]
fn sets() {
    let mut set = CpuSet::new();
    assert!(set.insert(0) && set.insert(511) && set.insert(64) && !set.insert(64));
    assert!(!set.insert(512) && !set.insert(u32::MAX) && !set.contains(512) && !set.remove(512));
    assert_eq!((set.count(), set.first(), set.last()), (3, Some(0), Some(511)));
    assert!(set.iter().eq([0, 64, 511]));
    assert!(set.remove(64) && !set.remove(64));
    assert_eq!(CpuSet::full(4).difference(&cpus(&[1])), cpus(&[0, 2, 3]));
    assert_eq!(cpus(&[1]).complement(4), cpus(&[0, 2, 3]));
    assert_eq!(cpus(&[1, 2]).intersection(&cpus(&[2, 3])), cpus(&[2]));
    assert_eq!(cpus(&[1, 2]).union(&cpus(&[2, 3])), cpus(&[1, 2, 3]));
    assert!(cpus(&[2]).is_subset(&cpus(&[2, 3])) && !cpus(&[1, 2]).is_subset(&cpus(&[2, 3])));
    assert_eq!((CpuSet::full(0).count(), CpuSet::full(65).last(), CpuSet::full(9999).count()), (0, Some(64), 512));
    assert_eq!((CpuSet::empty().first(), CpuSet::empty().last()), (None, None));
}

#[test]
fn lists_as_linux_reads_them() {
    for (list, expected) in [
        ("", &[][..]),
        ("0", &[0]),
        ("1-3", &[1, 2, 3]),
        ("0,2-3,7", &[0, 2, 3, 7]),
        (" 1 ,, 2\n", &[1, 2]),
        (",5,", &[5]),
        ("0-15:1/4", &[0, 4, 8, 12]),
        ("1-9:2/4", &[1, 2, 5, 6, 9]),
        ("0-3:0/4", &[]),
        ("N", &[15]),
        ("13-N", &[13, 14, 15]),
        ("all:1/8", &[0, 8]),
        ("007", &[7]),
    ] {
        assert_eq!(parse_list(list, 16), Ok(cpus(expected)), "{list:?}");
    }
    assert_eq!(parse_list("ALL", 16), Ok(CpuSet::full(16)));
    assert_eq!(parse_list("all", 0), Ok(CpuSet::new()));
}

#[test]
fn errors_say_what_and_where() {
    for (list, expected) in [
        ("x", "CPU number expected at character 1, found 'x'"),
        ("1,-2", "CPU number expected at character 3, found '-'"),
        ("1-", "CPU number expected at character 3, found the end"),
        ("1-2-3", "unexpected '-' at character 4"),
        ("1é", "unexpected 'é' at character 2"),
        ("allx", "unexpected 'x' at character 4"),
        ("3-1", "range 3-1 at character 1 runs backwards"),
        ("0-7:2", "unexpected end at character 6"),
        ("0-7:2/0", "stride 2/0 at character 5 must be used/group with group > 0, used <= group"),
        ("0-7:3/2", "stride 3/2 at character 5 must be used/group with group > 0, used <= group"),
        ("1,4294967296", "number at character 3 is too big"),
        ("2,14-16", "CPU 16 does not exist, the last one is 15"),
        ("4294967295", "CPU 4294967295 does not exist, the last one is 15"),
    ] {
        assert_eq!(parse_list(list, 16).map_err(|error| error.to_string()), Err(expected.into()), "{list:?}");
    }
    assert!(parse_list("N", 0).is_err());
}

#[test]
fn clipped_lists_name_the_first_item_beyond() {
    let (set, error) = parse_list_clipped("2,14-20,99,0-4294967295:1/8", 16).unwrap();
    assert_eq!(set, cpus(&[0, 2, 8, 14, 15]));
    let kind = ListErrorKind::NoSuchCpu { cpu: 20, nr_cpus: 16 };
    assert_eq!(error, Some(ListError { offset: 2, kind }));
    assert_eq!(parse_list_clipped("1", 16), Ok((cpus(&[1]), None)));
}

#[test]
fn printing() {
    assert_eq!(cpus(&[0, 1, 2, 5, 7, 8, 511]).to_string(), "0-2,5,7-8,511");
    assert_eq!(CpuSet::new().to_string(), "");
    assert_eq!(CpuId(7).to_string(), "7");
    assert_eq!(cpus(&[0, 3]).mask(4).to_string(), "9");
    assert_eq!(cpus(&[0, 3]).mask(8).to_string(), "09");
    assert_eq!(cpus(&[0, 3]).mask(32).to_string(), "00000009");
    assert_eq!(cpus(&[0, 35]).mask(36).to_string(), "8,00000001");
    assert_eq!(cpus(&[0, 64]).mask(65).to_string(), "1,00000000,00000001");
    assert_eq!(cpus(&[9]).mask(4).to_string(), "0");
    assert_eq!(CpuSet::full(512).mask(9999).to_string().len(), 16 * 9 - 1);
}

#[test]
fn masks_are_read_as_they_are_written() {
    for cpus in [1, 4, 33, 255, MAX_CPUS as u32] {
        let set: CpuSet = (0..cpus).filter(|c| c % 3 != 1).collect();
        assert_eq!(CpuSet::from_mask(&format!("{}\n", set.mask(cpus))), Some(set));
    }
    assert_eq!(CpuSet::from_mask("0x5"), Some([0, 2].into_iter().collect()));
    assert_eq!(CpuSet::from_mask("0"), Some(CpuSet::new()));
    assert_eq!(CpuSet::from_mask(&"0".repeat(200)), Some(CpuSet::new()));
    for bad in ["", "\n", ",", "g", "-1", "1 2", &("1".to_string() + &"0".repeat(MAX_CPUS / 4))] {
        assert_eq!(CpuSet::from_mask(bad), None, "{bad:?}");
    }
}
