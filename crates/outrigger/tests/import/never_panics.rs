//! Whatever is in a configuration, it becomes a fleet that passes `check`, or nothing and the reason.

use std::path::Path;

use outrigger::config;
use outrigger_import::{Inputs, Prices, Verdict, import, parse_keys};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{KITCHEN, NOW, env};

/// What is likely to upset a reader or a writer of names, numbers and addresses.
const SPLINTERS: &[&str] = &[
    "{",
    "]",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\"",
    "'",
    "&a ",
    "*vllm",
    "<<: ",
    "${A}",
    "#",
    "~",
    "null",
    "-1",
    "0x1",
    "1e999",
    "0",
    "\u{feff}",
    "ü",
    "\u{0}",
    "\u{7f}",
    ",",
    "999999999999999999999",
    "%",
    "os.environ/",
    "openai/",
    "http://",
    "@",
    "?",
    "/v1",
    "model_name: ",
    "yes",
    " ",
    "\\",
    "[]",
    "*",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_configuration_is_answered(edits in vec((any::<Index>(), 0_usize..12, 0..SPLINTERS.len()), 1..8)) {
        let mut text = KITCHEN.to_owned();
        for (at, removed, splinter) in edits {
            let boundary = |mut i: usize| { while !text.is_char_boundary(i) { i -= 1 } i };
            let start = boundary(at.index(text.len() + 1));
            let end = boundary((start + removed).min(text.len())).max(start);
            text.replace_range(start..end, SPLINTERS[splinter]);
        }
        let inputs = Inputs { env: &env, prices: &Prices::default(), keys: &[], now: NOW, known_key: &|_| None, is_served: false };
        let Ok(imported) = import(&text, &inputs) else { return Ok(()) };
        match imported.fleet {
            Some(fleet) => {
                let loaded = config::load_str(&fleet, Path::new("."));
                prop_assert!(loaded.is_ok(), "{}\n{}", loaded.unwrap_err(), fleet);
            }
            None => prop_assert!(imported.report.has(Verdict::Refused)),
        }
    }

    #[test]
    fn an_export_is_answered(text in "[\\[{]?(\"token\"|token|,|:|\n|\"|[a-f0-9]{64}|[{}\\]a-z])*") {
        drop(parse_keys(&text));
    }
}
