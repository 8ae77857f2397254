//! The scanner accepts what serde_json accepts, less what its head says, and its spans are the members.

use outrigger_wire::json::{Fault, Limits, MAX_MEMBERS, members};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::support::{damaged, object, render, style, value};

fn document() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![3 => object().prop_map(Value::from), 1 => value()];
    (text, style()).prop_map(|(value, style)| render(&value, style).into_bytes())
}

proptest! {
    #[test]
    fn members_are_those_that_serde_json_reads(map in object(), style in style()) {
        let text = render(&Value::from(map.clone()), style);
        let members = members(text.as_bytes(), &Limits::default()).unwrap();
        prop_assert_eq!(text.as_bytes()[members.open()], b'{');
        let seen: Map<String, Value> = members
            .iter()
            .map(|member| (members.key(member).into_owned(), serde_json::from_str(members.value(member)).unwrap()))
            .collect();
        prop_assert_eq!(&seen, &map);
        for name in map.keys() {
            prop_assert_eq!(members.key(members.get(name).unwrap()), name.as_str());
        }
        for member in &members {
            prop_assert_eq!(&text[member.key.start - 1..member.key.start], "\"");
            prop_assert_eq!(&text[member.key.end..=member.key.end], "\"");
            prop_assert_eq!(members.value(member).trim(), members.value(member));
        }
    }

    #[test]
    fn it_accepts_what_serde_json_accepts(text in damaged(document())) {
        let grammatical = serde_json::from_slice::<IgnoredAny>(&text).is_ok() && str::from_utf8(&text).is_ok();
        let found = members(&text, &Limits::default());
        match &found {
            Ok(_) => prop_assert!(grammatical),
            Err(Fault::NotUtf8 { .. }) => prop_assert!(str::from_utf8(&text).is_err()),
            Err(Fault::Syntax { .. }) => prop_assert!(!grammatical),
            Err(Fault::Shape { what, .. }) => prop_assert_eq!(what, "a key is not text"),
            Err(Fault::NotAnObject { offset }) => prop_assert_ne!(text[*offset], b'{'),
            Err(Fault::DuplicateKey { .. }) => prop_assert!(grammatical),
            Err(Fault::TooDeep { .. } | Fault::TooManyMembers { .. }) => prop_assert!(false, "not that large"),
        }
        if let Err(fault) = &found {
            prop_assert!(fault.offset() <= text.len());
        }
        if let (Ok(members), Ok(Value::Object(map))) = (&found, serde_json::from_slice(&text)) {
            prop_assert_eq!(members.len(), map.len());
        }
    }

    #[test]
    fn a_doubled_key_is_always_found(mut map in object(), key in "[a-z]{1,4}", first in style(), at in 0_usize..8) {
        map.shift_remove(&key);
        let mut parts: Vec<String> = map.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
        parts.insert(at.min(parts.len()), format!("{}:1", render(&Value::from(key.as_str()), first)));
        parts.push(format!("{}:2", Value::from(key.as_str())));
        let text = format!("{{{}}}", parts.join(","));
        let is_duplicate = matches!(members(text.as_bytes(), &Limits::default()), Err(Fault::DuplicateKey { .. }));
        prop_assert!(is_duplicate);
    }
}

#[test]
fn the_depth_limit_is_exact_and_counts_no_brackets_in_strings() {
    let nested = |depth: usize| format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth));
    assert!(members(nested(128).as_bytes(), &Limits::default()).is_ok());
    assert!(matches!(members(nested(129).as_bytes(), &Limits::default()), Err(Fault::TooDeep { max_depth: 128, .. })));
    let text = format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(999), "{".repeat(999));
    assert!(members(text.as_bytes(), &Limits::default()).is_ok());
}

#[test]
fn the_bound_on_members_is_exact() {
    let document = |count: usize| {
        let list: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", list.join(","))
    };
    assert_eq!(members(document(MAX_MEMBERS).as_bytes(), &Limits::default()).unwrap().len(), MAX_MEMBERS);
    assert!(members(document(MAX_MEMBERS + 1).as_bytes(), &Limits::default()).is_err());
}
