//! What differs between backends of one model, and what it means.
//!
//! A client does not know which of them answers, so that whatever differs is chance to it. Counts of prompt tokens are
//! the sharpest sign: they are exact, and other counts mean that another text went into the model. Answers are compared
//! only where the counts agree, since what differs before cannot agree after. They may part for no fault at all: two
//! kinds of GPU round differently, and where two words are about as likely, one takes the other. So a few that part are
//! shown, and [`MANY`] are warned about.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    answers::{Ability, Agreed, Answer, agreed},
    questions::{ANSWER_TOKENS, PROMPTS},
};

/// Answers of [`PROMPTS`] that may not part early without a warning.
pub const MANY: usize = 3;

/// What one backend said to all questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// By the order of [`PROMPTS`]; those after the last were not asked.
    pub prompts: Vec<Option<Answer>>,
    pub tool: Option<Ability>,
    pub form: Option<Ability>,
    /// Why it was not asked everything, in words that go on from its name.
    pub gave_up: Option<String>,
}

/// A backend among those that are compared.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    pub name: &'a str,
    /// The engine with its version.
    pub engine: String,
    /// Tokens of prompt and answer together.
    pub context: Option<u64>,
    pub answers: &'a Answers,
}

impl Member<'_> {
    pub fn answer(&self, prompt: usize) -> Option<&Answer> {
        self.answers.prompts.get(prompt)?.as_ref()
    }

    pub fn prompt_tokens(&self, prompt: usize) -> Option<u64> {
        self.answer(prompt)?.prompt_tokens
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Engine,
    Context,
    PromptTokens,
    Answers,
    Tools,
    Form,
    Incomplete,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    pub message: String,
    pub help: String,
}

/// Everything that differs between them.
pub fn compare(model: &str, members: &[Member<'_>]) -> Vec<Difference> {
    let all = [engines(model, members), contexts(model, members), prompt_tokens(model, members)];
    let abilities = [
        ability(model, members, Kind::Tools, "a tool that has to be called", |answers| answers.tool.as_ref()),
        ability(model, members, Kind::Form, "a JSON schema", |answers| answers.form.as_ref()),
    ];
    let answers = answers(model, members);
    all.into_iter().flatten().chain(answers).chain(abilities.into_iter().flatten()).chain(gaps(members)).collect()
}

/// How far a member's answer is that of the first one; `None` where one of them has none.
pub fn with_the_first(members: &[Member<'_>], member: usize, prompt: usize) -> Option<Agreed> {
    let first = members.first()?.answer(prompt)?;
    Some(agreed(first, members.get(member)?.answer(prompt)?))
}

/// Whether the known ones among these are not all the same.
pub fn differ<T: Ord>(values: impl Iterator<Item = Option<T>>) -> bool {
    values.flatten().collect::<BTreeSet<_>>().len() > 1
}

/// `1024 on a and b; 512 on c`, in the order of the members.
fn spread<T: PartialEq + std::fmt::Display>(members: &[Member<'_>], of: impl Fn(&Member<'_>) -> Option<T>) -> String {
    let mut groups: Vec<(T, Vec<&str>)> = Vec::new();
    for member in members {
        let Some(value) = of(member) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, names)) => names.push(member.name),
            None => groups.push((value, vec![member.name])),
        }
    }
    let one = |(value, names): &(T, Vec<&str>)| format!("{value} on {}", names.join(" and "));
    groups.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn engines(model: &str, members: &[Member<'_>]) -> Option<Difference> {
    let of = |member: &Member<'_>| Some(member.engine.clone());
    differ(members.iter().map(of)).then(|| Difference {
        kind: Kind::Engine,
        message: format!("`{model}` is served by several engines or versions: {}", spread(members, of)),
        help: "defaults and chat templates change between them: run one version, unless you are rolling another out"
            .to_owned(),
    })
}

fn contexts(model: &str, members: &[Member<'_>]) -> Option<Difference> {
    let of = |member: &Member<'_>| member.context;
    let least = members.iter().filter_map(of).min()?;
    differ(members.iter().map(of)).then(|| Difference {
        kind: Kind::Context,
        message: format!("`{model}` has several lengths of context: {}", spread(members, of)),
        help: format!(
            "a request of more than {least} tokens fails on some and not on others: start them with one \
             --max-model-len (vLLM), --context-length (SGLang) or -c (llama.cpp, which divides it by its slots)"
        ),
    })
}

fn prompt_tokens(model: &str, members: &[Member<'_>]) -> Option<Difference> {
    let asked: Vec<usize> = (0..PROMPTS.len())
        .filter(|prompt| members.iter().filter_map(|member| member.prompt_tokens(*prompt)).count() > 1)
        .collect();
    let other: Vec<usize> = asked.iter().copied().filter(|prompt| differ_on(members, *prompt)).collect();
    let first = *other.first()?;
    let names: Vec<&str> = other.iter().map(|prompt| PROMPTS[*prompt].name).collect();
    // A template adds the same to every single message, and a tokenizer something else to each.
    let single = asked.iter().copied().filter(|prompt| PROMPTS[*prompt].is_one_message());
    let gaps: BTreeSet<Vec<i128>> = single.map(|prompt| gaps_to_the_first(members, prompt)).collect();
    let is_constant = gaps.len() == 1 && other.len() == asked.len();
    let which = if other.len() == asked.len() { String::new() } else { format!(" ({})", names.join(", ")) };
    let help = if is_constant {
        "on single messages by the same number: most likely another chat template or a default system prompt; give all of them the \
         same --chat-template"
    } else {
        "another chat template or tokenizer: pin one revision of the model (--revision), and give all of them the same \
         --chat-template"
    };
    Some(Difference {
        kind: Kind::PromptTokens,
        message: format!(
            "prompt_tokens of `{model}` differ on {} of {} prompts{which}: `{}` has {}",
            other.len(),
            asked.len(),
            PROMPTS[first].name,
            spread(members, |member| member.prompt_tokens(first)),
        ),
        help: help.to_owned(),
    })
}

fn differ_on(members: &[Member<'_>], prompt: usize) -> bool {
    differ(members.iter().map(|member| member.prompt_tokens(prompt)))
}

fn gaps_to_the_first(members: &[Member<'_>], prompt: usize) -> Vec<i128> {
    let count = |member: &Member<'_>| member.prompt_tokens(prompt).map_or(0, i128::from);
    let first = members.first().map_or(0, count);
    members.iter().map(|member| count(member) - first).collect()
}

/// One for each backend whose answers part early from the first one's.
fn answers(model: &str, members: &[Member<'_>]) -> Vec<Difference> {
    let comparable: Vec<usize> = (0..PROMPTS.len()).filter(|prompt| !differ_on(members, *prompt)).collect();
    let mut all = Vec::new();
    for (index, member) in members.iter().enumerate().skip(1) {
        let of: Vec<Agreed> = comparable.iter().filter_map(|prompt| with_the_first(members, index, *prompt)).collect();
        let parted: BTreeMap<usize, usize> =
            of.iter().filter(|agreed| !agreed.is_whole()).fold(BTreeMap::new(), |mut counts, agreed| {
                *counts.entry(agreed.same).or_default() += 1;
                counts
            });
        let count: usize = parted.values().sum();
        if count < MANY {
            continue;
        }
        let earliest = parted.keys().next().copied().unwrap_or_default();
        all.push(Difference {
            kind: Kind::Answers,
            message: format!(
                "`{}` answers {count} of {} prompts unlike `{}`, at temperature 0 and within {ANSWER_TOKENS} tokens, \
                 the earliest after {earliest}",
                member.name,
                of.len(),
                members[0].name,
            ),
            help: format!(
                "other weights, quantization or sampling defaults: compare --revision, --quantization and --dtype of \
                 the engines of `{model}`; different GPUs alone make a few answers part, and late"
            ),
        });
    }
    all
}

fn ability(
    model: &str,
    members: &[Member<'_>],
    kind: Kind,
    what: &str,
    of: fn(&Answers) -> Option<&Ability>,
) -> Option<Difference> {
    let word = |member: &Member<'_>| match of(member.answers)? {
        Ability::Works => Some("works".to_owned()),
        Ability::Refused(why) => Some(format!("is refused ({why})")),
        Ability::Wrong(why) => Some(format!("goes wrong ({why})")),
        Ability::Unfinished => None,
    };
    let works = |member: &Member<'_>| word(member).map(|word| word == "works");
    let help = match kind {
        Kind::Tools => {
            "start them with the same tool parser (vLLM: --enable-auto-tool-choice --tool-call-parser), or take the \
             others out of the split for clients that use tools"
        }
        _ => "start them with the same guided decoding, or bring them to one version",
    };
    differ(members.iter().map(works)).then(|| Difference {
        kind,
        message: format!("{what} does not work on every backend of `{model}`: it {}", spread(members, word)),
        help: help.to_owned(),
    })
}

fn gaps(members: &[Member<'_>]) -> impl Iterator<Item = Difference> {
    members.iter().filter_map(|member| {
        let why = member.answers.gave_up.as_ref()?;
        Some(Difference {
            kind: Kind::Incomplete,
            message: format!("`{}` was not compared in full: it {why}", member.name),
            help: "look into the engine's log, and check again; give a slow engine more time with --timeout".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers_of(tokens: [u64; 10], words: &str) -> Answers {
        let answer = |count: u64| Some(Answer { prompt_tokens: Some(count), text: words.to_owned(), tokens: None });
        let works = Some(Ability::Works);
        Answers { prompts: tokens.into_iter().map(answer).collect(), tool: works.clone(), form: works, gave_up: None }
    }

    fn member<'a>(name: &'a str, answers: &'a Answers) -> Member<'a> {
        Member { name, engine: "vllm 1".to_owned(), context: Some(4096), answers }
    }

    const COUNTS: [u64; 10] = [5, 9, 20, 40, 30, 25, 12, 33, 28, 150];

    /// The kinds that are found, and all messages.
    fn found(members: &[Member<'_>]) -> (Vec<Kind>, String) {
        let all = compare("m", members);
        assert!(all.iter().all(|difference| !difference.help.is_empty()));
        let text = all.iter().map(|d| format!("{}\n{}\n", d.message, d.help)).collect();
        (all.iter().map(|difference| difference.kind).collect(), text)
    }

    #[test]
    fn equals_differ_in_nothing() {
        let one = answers_of(COUNTS, "a b c");
        assert_eq!(found(&[member("a", &one), member("b", &one), member("c", &one)]).0, []);
        assert_eq!(found(&[]).0, []);
    }

    #[test]
    fn engines_and_contexts_are_named_with_their_backends() {
        let one = answers_of(COUNTS, "a");
        let other = Member { engine: "vllm 2".to_owned(), context: Some(512), ..member("b", &one) };
        let (kinds, text) = found(&[member("a", &one), other, member("c", &one)]);
        assert_eq!(kinds, [Kind::Engine, Kind::Context]);
        assert!(text.contains("vllm 1 on a and c; vllm 2 on b"), "{text}");
        assert!(text.contains("4096 on a and c; 512 on b") && text.contains("more than 512 tokens fails"), "{text}");
        let unknown = Member { context: None, ..member("b", &one) };
        assert_eq!(found(&[member("a", &one), unknown]).0, [], "not known is not another");
    }

    #[test]
    fn counts_that_differ_by_one_number_on_single_messages_are_a_template_and_others_a_tokenizer() {
        let (one, template) = (answers_of(COUNTS, "a"), answers_of(COUNTS.map(|count| count + 4), "a"));
        let mut turns = template.clone();
        turns.prompts[2].iter_mut().for_each(|answer| answer.prompt_tokens = Some(99));
        assert!(found(&[member("a", &one), member("b", &turns)]).1.contains("most likely another chat template"));
        let (kinds, text) = found(&[member("a", &one), member("b", &template)]);
        assert_eq!(kinds, [Kind::PromptTokens], "answers to other tokens are not compared");
        assert!(text.contains("10 of 10 prompts") && text.contains("`plain` has 5 on a; 9 on b"), "{text}");
        assert!(text.contains("on single messages by the same number: most likely another chat template"), "{text}");
        let mut counts = COUNTS;
        counts[4] += 7;
        counts[5] += 2;
        let tokenizer = answers_of(counts, "a");
        let (kinds, text) = found(&[member("a", &one), member("b", &tokenizer)]);
        assert_eq!(kinds, [Kind::PromptTokens]);
        assert!(text.contains("2 of 10 prompts (unicode, emoji)") && text.contains("or tokenizer: pin"), "{text}");
    }

    #[test]
    fn a_few_answers_may_part_and_many_may_not() {
        let one = answers_of(COUNTS, "a b c d");
        let parted = |many: usize| {
            let mut other = one.clone();
            for answer in other.prompts.iter_mut().take(many).flatten() {
                answer.text = "a b x d".to_owned();
            }
            other
        };
        let (few, many) = (parted(MANY - 1), parted(MANY));
        assert_eq!(found(&[member("a", &one), member("b", &few)]).0, []);
        let (kinds, text) = found(&[member("a", &one), member("b", &few), member("c", &many)]);
        assert_eq!(kinds, [Kind::Answers]);
        assert!(text.contains("`c` answers 3 of 10 prompts unlike `a`") && text.contains("earliest after 2"), "{text}");
    }

    #[test]
    fn what_one_can_and_another_cannot_is_told_and_what_none_can_is_not() {
        let one = answers_of(COUNTS, "a");
        let refused = Some(Ability::Refused("400: no parser".to_owned()));
        let other = Answers { tool: refused.clone(), form: Some(Ability::Unfinished), ..one.clone() };
        let (kinds, text) = found(&[member("a", &one), member("b", &other)]);
        assert_eq!(kinds, [Kind::Tools]);
        assert!(text.contains("it works on a; is refused (400: no parser) on b"), "{text}");
        let wrong = Answers { tool: Some(Ability::Wrong("says so".to_owned())), ..one.clone() };
        assert_eq!(found(&[member("b", &other), member("c", &wrong)]).0, [], "neither can");
    }

    #[test]
    fn one_that_was_not_compared_in_full_says_why() {
        let one = answers_of(COUNTS, "a");
        let mut short = one.clone();
        short.prompts.truncate(2);
        short.gave_up = Some("gives no whole answer within 60s".to_owned());
        let (kinds, text) = found(&[member("a", &one), member("b", &short)]);
        assert_eq!(kinds, [Kind::Incomplete]);
        assert!(text.contains("`b` was not compared in full: it gives no whole answer"), "{text}");
    }
}
