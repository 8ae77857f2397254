//! Whatever is in the file, it is answered with faults or a fleet.

use outrigger::config::Code;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{FLEET, faults_of};

/// What is likely to upset a reader of YAML.
const SPLINTERS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "!t ",
    "<<: ",
    "${",
    "${A}",
    "#",
    "? ",
    "---\n",
    "~",
    "null",
    "-1",
    "0x1",
    "1e999",
    "\u{feff}",
    "ü",
    "\u{0}",
    ",",
    "999999999999999999999",
    "\r\n",
    "%",
];

fn answer(input: &[u8]) -> Result<(), TestCaseError> {
    let faults = faults_of(input);
    let lines = input.split(|b| *b == b'\n').count();
    for fault in faults.iter() {
        prop_assert_ne!(fault.code, Code::Internal, "{}", faults);
        prop_assert!(!fault.help.is_empty() && (1..=lines).contains(&fault.line) && fault.column >= 1, "{:?}", fault);
    }
    faults.render(true);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_answered(input in vec(any::<u8>(), 0..400)) {
        answer(&input)?;
    }

    #[test]
    fn a_broken_fleet_is_answered(edits in vec((any::<Index>(), 0_usize..12, 0..SPLINTERS.len()), 1..8)) {
        let mut text = FLEET.to_owned();
        for (at, removed, splinter) in edits {
            let boundary = |mut i: usize| { while !text.is_char_boundary(i) { i -= 1 } i };
            let start = boundary(at.index(text.len() + 1));
            let end = boundary((start + removed).min(text.len())).max(start);
            text.replace_range(start..end, SPLINTERS[splinter]);
        }
        answer(text.as_bytes())?;
    }

    #[test]
    fn a_fleet_cut_short_is_answered(at in any::<Index>()) {
        answer(&FLEET.as_bytes()[..at.index(FLEET.len())])?;
    }
}
