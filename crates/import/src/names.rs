//! Names that a fleet file takes, from names that LiteLLM takes.
//!
//! LiteLLM calls a model whatever its configuration says, with capitals, slashes and colons. A fleet's names appear in
//! metrics, URLs and headers and are narrower; the old name stays callable as an alias. The same file always gives the
//! same names: names that can stay are claimed first, and a second owner gets `-2`.

use std::collections::BTreeSet;

const LONGEST: usize = 63;
const LONGEST_ALIAS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Keeps a name from being given away; `false` if it was taken.
    pub(super) fn reserve(&mut self, name: &str) -> bool {
        self.0.insert(name.to_owned())
    }

    pub(super) fn claim(&mut self, wanted: &str) -> String {
        let name = sanitised(wanted);
        if self.0.insert(name.clone()) {
            return name;
        }
        let numbered = (2..).map(|n| {
            let end = format!("-{n}");
            format!("{}{end}", &name[..name.len().min(LONGEST - end.len())])
        });
        let free = numbered.into_iter().find(|name| !self.0.contains(name)).expect("numbers do not end");
        self.0.insert(free.clone());
        free
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    text.len() <= LONGEST
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

pub(super) fn is_alias(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_ALIAS && text.bytes().all(|b| b.is_ascii_graphic())
}

fn sanitised(text: &str) -> String {
    let mut name: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    name.truncate(name.trim_end_matches(['-', '.', '_']).len());
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// `os.environ/NAME`, as LiteLLM refers to a variable.
pub(super) fn variable(text: &str) -> Option<&str> {
    text.strip_prefix("os.environ/").map(str::trim)
}

pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// How variables for secrets start that the old file has as text. No provider's own variable does.
pub(super) const PREFIX: &str = "LITELLM_KEY_";

/// The name of a variable for the key of `owner`.
pub(super) fn variable_for(owner: &str) -> String {
    let upper = owner.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    PREFIX.chars().chain(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_to_fit_and_stay_apart() {
        let mut names = Names::default();
        for (wanted, expect) in [
            ("gpt-4o", "gpt-4o"),
            ("GPT-4o", "gpt-4o-2"),
            ("openai/gpt-4o", "openai-gpt-4o"),
            ("-ü-", "unnamed"),
            ("bedrock/us.anthropic:0", "bedrock-us.anthropic-0"),
        ] {
            assert_eq!(names.claim(wanted), expect);
        }
        let long = "x".repeat(80);
        assert_eq!(names.claim(&long).len(), 63);
        let second = names.claim(&long);
        assert!(second.len() == 63 && second.ends_with("-2") && is_name(&second));
    }
}
