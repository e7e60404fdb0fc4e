//! limine.cfg: no text panics, errors name a line that exists, and an accepted one turns into limine.conf.
//! A failing case is printed with its seed by proptest.

use kcore::limine_cfg::{parse, strip_boot_uri, to_limine_conf};
use proptest::prelude::*;

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[:+ A-Za-z]{0,12}",
        "#\\PC{0,10}",
        "(TIMEOUT|DEFAULT_ENTRY)=[0-9no]{0,4}",
        "(PROTOCOL|KERNEL_PATH|CMDLINE|MODULE_PATH|module_cmdline|Other)=\\PC{0,12}",
        "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(text in lines()) {
        match parse(&text) {
            Ok(config) => {
                let conf = to_limine_conf(&config);
                prop_assert_eq!(conf.matches("\n    module_path: ").count(), config.modules.len());
                prop_assert!(!config.protocol.is_empty() && !config.kernel_path.is_empty());
            }
            Err(error) => prop_assert!(error.line as usize <= text.lines().count() && error.to_string().starts_with("limine.cfg")),
        }
    }

    #[test]
    fn what_is_written_is_read(name in "[A-Za-z][A-Za-z ]{0,8}[a-z]", path in "[a-z/]{1,20}", cmdline in "[a-z]([a-z=, \"-]{0,30}[a-z])?", modules in 0..16usize) {
        let module = format!("MODULE_PATH=boot:///{path}\nMODULE_CMDLINE={cmdline}\n");
        let text = format!("TIMEOUT=3\n:{name}\n PROTOCOL=limine\n KERNEL_PATH=boot:///{path}\n KERNEL_CMDLINE={cmdline}\n{}", module.repeat(modules));
        let config = parse(&text).unwrap();
        prop_assert_eq!((config.entry_name, config.cmdline, config.timeout), (name.as_str(), cmdline.as_str(), Some(3)));
        prop_assert_eq!(strip_boot_uri(config.kernel_path), path.trim_start_matches('/'));
        prop_assert_eq!(config.modules.len(), modules);
        prop_assert!(config.modules.iter().all(|module| module.cmdline == cmdline));
    }

    #[test]
    fn uris_do_not_panic(uri in "\\PC{0,20}|\\$?boot[:/()0-9#é]{0,12}") {
        prop_assert!(strip_boot_uri(&uri).len() <= uri.len());
    }
}
