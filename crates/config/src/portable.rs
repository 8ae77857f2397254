//! Plain scalars that YAML 1.1 and YAML 1.2 read as different values.
//!
//! The same fleet file is read by this program (YAML 1.2), by Helm and kubectl (YAML 1.1 in part) and by Python tools
//! (YAML 1.1), so a value that depends on the reader is a fault even where we would read it as meant. Dates are let
//! through: 1.1 makes them dates and 1.2 text, and both print the same. Sources: <https://yaml.org/type/> (bool, int,
//! float, merge, null, value) and YAML 1.2.2 §10.3.2.

/// Why `text`, written without quotes, is at fault, and what to write; `None` when every reader agrees on it.
pub(crate) fn fault(text: &str) -> Option<(String, String)> {
    let unquoted = |why: &str| format!("`{text}` without quotes {why}");
    match text {
        "~" => {
            return Some((
                unquoted("is an empty value"),
                "leave the key out, or write the value that is meant".to_owned(),
            ));
        }
        "=" => return Some((unquoted("means something else to YAML 1.1"), "quote it: \"=\"".to_owned())),
        _ => {}
    }
    if let Some(truth) = old_bool(text) {
        let help = format!("write `{truth}` if that is meant, or quote the word: \"{text}\"");
        return Some((unquoted(&format!("is {truth} to YAML 1.1 and a word to YAML 1.2")), help));
    }
    if is_special_float(text) {
        return Some((
            unquoted("is a number that no setting takes"),
            format!("quote it if a word is meant: \"{text}\""),
        ));
    }
    let (why, help) = number_fault(text)?;
    Some((unquoted(why), help))
}

/// A number that every reader takes for the same number.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let exponent_is_one = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    all_digits(whole) && all_digits(fraction) && whole.len() + fraction.len() > 0 && exponent_is_one
}

fn old_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn is_special_float(text: &str) -> bool {
    let name = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(name, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

fn number_fault(text: &str) -> Option<(&'static str, String)> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let write = |number: Option<i128>| match number {
        Some(n) => format!("write {n}, or quote it if text is meant: \"{text}\""),
        None => format!("write the number out, or quote it if text is meant: \"{text}\""),
    };
    let radix = |prefix: &str, radix| {
        let rest = digits.strip_prefix(prefix)?.replace('_', "");
        (!rest.is_empty() && rest.chars().all(|c| c.is_digit(radix))).then(|| i128::from_str_radix(&rest, radix).ok())
    };
    if let Some(n) = radix("0o", 8) {
        return Some(("is a number to YAML 1.2 and text to YAML 1.1", write(n)));
    }
    if let Some(n) = radix("0b", 2) {
        return Some(("is a number to YAML 1.1 and text to YAML 1.2", write(n)));
    }
    if let Some(n) = radix("0x", 16) {
        return Some(("is not a decimal number", write(n)));
    }
    if is_sexagesimal(digits) {
        return Some(("is a number in base 60 to YAML 1.1", format!("quote it: \"{text}\"")));
    }
    if digits.contains('_') && is_number(&digits.replace('_', "")) {
        let plain = digits.replace('_', "").parse().ok();
        return Some(("is a number to YAML 1.1 and text to YAML 1.2", write(plain)));
    }
    if !is_number(text) {
        return None;
    }
    let is_whole = digits.bytes().all(|b| b.is_ascii_digit());
    if is_whole && digits.len() > 1 && digits.starts_with('0') {
        let decimal = digits.trim_start_matches('0').parse().ok().or(Some(0));
        return Some(("is octal to YAML 1.1 and decimal to YAML 1.2", write(decimal)));
    }
    let has_exponent = digits.contains(['e', 'E']);
    has_exponent.then(|| ("is a number to YAML 1.2 and may be text to YAML 1.1", write(None)))
}

/// `12:30:00`, `8080:80`: digits in groups, each after the first below 60.
fn is_sexagesimal(digits: &str) -> bool {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut groups = whole.split(':');
    let first = groups.next().unwrap_or_default();
    let is_group = |s: &str| matches!(s.len(), 1 | 2) && s.parse::<u8>().is_ok_and(|n| n < 60);
    let is_first = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let rest: Vec<&str> = groups.collect();
    is_first
        && !rest.is_empty()
        && rest.iter().all(|s| is_group(s))
        && fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_disagree_on_is_a_fault() {
        for text in [
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "N",
            "~",
            "=",
            ".inf",
            "-.INF",
            ".nan",
            "0o17",
            "017",
            "1_000",
            "12:30:00",
            "22:22",
            "190:20:30.15",
            "0b101",
            "0x1F",
            "1e3",
            "1.5e+3",
            "00",
            "-012",
        ] {
            assert!(fault(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_readers_agree_on_is_none() {
        for text in [
            "true",
            "0",
            "16",
            "-3",
            "2.39",
            ".5",
            "1.",
            "800ms",
            "12m",
            "2027-05-31",
            "127.0.0.1:8080",
            "yesterday",
            "h100",
            "gpt-4o-mini",
            "4.1",
            "http://10.0.0.1:8000/v1",
            "8080:99",
            "a_b",
            "0",
            "1.2.3",
            "::1",
            "",
        ] {
            assert_eq!(fault(text), None, "{text}");
        }
    }
}
