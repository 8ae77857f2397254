//! What was seen, as tables for a terminal: a line for each backend, and for each model that several serve a column for
//! each of them.

use std::{fmt::Write as _, time::Duration};

use crate::{
    answers::{Ability, Agreed},
    compare::{Member, differ, with_the_first},
    questions::PROMPTS,
};

/// One backend, for the first table.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub name: &'a str,
    pub engine: String,
    pub model: &'a str,
    pub context: Option<u64>,
    /// How long a token took; `None` where none came.
    pub took: Option<Duration>,
}

/// A column is as wide as its widest cell.
fn draw(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        text
    })
}

/// All backends, a line for each.
pub fn backends(rows: &[Row<'_>]) -> String {
    let head = ["backend", "engine", "model", "context", "one token"].map(str::to_owned).to_vec();
    let line = |row: &Row<'_>| {
        vec![
            row.name.to_owned(),
            row.engine.clone(),
            row.model.to_owned(),
            row.context.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string()),
            row.took.map_or_else(|| "DOWN".to_owned(), |took| format!("{} ms", took.as_millis())),
        ]
    };
    draw(&[vec![head], rows.iter().map(line).collect()].concat())
}

/// One model, a column for each backend. A prompt's cell is its tokens, and how much of the answer is as the first's.
pub fn parity(model: &str, members: &[Member<'_>]) -> String {
    let mut rows = vec![line(model, members, |member| member.name.to_owned(), false)];
    let contexts = differ(members.iter().map(|member| member.context));
    let engines = differ(members.iter().map(|member| Some(&member.engine)));
    rows.push(line("  engine", members, |member| member.engine.clone(), engines));
    rows.push(line("  context", members, |member| count(member.context), contexts));
    for (index, prompt) in PROMPTS.iter().enumerate() {
        let mut row = vec![format!("  {}", prompt.name)];
        row.extend(
            members.iter().enumerate().map(|(at, member)| cell(members, at, member.prompt_tokens(index), index)),
        );
        let is_other = differ(members.iter().map(|member| member.prompt_tokens(index)));
        let parted = (1..members.len()).filter_map(|at| with_the_first(members, at, index)).any(|it| !it.is_whole());
        row.push(if is_other {
            "differs".to_owned()
        } else if parted {
            "parts".to_owned()
        } else {
            String::new()
        });
        rows.push(row);
    }
    let works =
        |ability: Option<&Ability>| ability.filter(|it| **it != Ability::Unfinished).map(|it| *it == Ability::Works);
    let tools = differ(members.iter().map(|member| works(member.answers.tool.as_ref())));
    let forms = differ(members.iter().map(|member| works(member.answers.form.as_ref())));
    rows.push(line("  tool call", members, |member| word(member.answers.tool.as_ref()).to_owned(), tools));
    rows.push(line("  JSON schema", members, |member| word(member.answers.form.as_ref()).to_owned(), forms));
    draw(&rows)
}

fn line(name: &str, members: &[Member<'_>], cell: impl Fn(&Member<'_>) -> String, differs: bool) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    row.extend(members.iter().map(cell));
    row.push(if differs { "differs" } else { "" }.to_owned());
    row
}

fn cell(members: &[Member<'_>], at: usize, tokens: Option<u64>, prompt: usize) -> String {
    // Answers to other tokens have nothing to agree in.
    let is_comparable = at > 0 && members[0].prompt_tokens(prompt) == tokens;
    let agreed = if is_comparable { with_the_first(members, at, prompt) } else { None };
    match agreed {
        None => count(tokens),
        Some(Agreed { same, of }) => format!("{}, {same}/{of} alike", count(tokens)),
    }
}

fn count(tokens: Option<u64>) -> String {
    tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string())
}

/// One word for what an engine can do.
pub fn word(ability: Option<&Ability>) -> &'static str {
    match ability {
        None => "-",
        Some(Ability::Works) => "works",
        Some(Ability::Refused(_)) => "refused",
        Some(Ability::Wrong(_)) => "wrong",
        Some(Ability::Unfinished) => "unfinished",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answers::Answer, compare::Answers};

    #[test]
    fn a_model_has_a_column_for_each_backend_and_says_where_they_differ() {
        let answer =
            |count: u64, text: &str| Some(Answer { prompt_tokens: Some(count), text: text.to_owned(), tokens: None });
        let mut one = Answers { prompts: vec![answer(5, "a b"); 10], tool: Some(Ability::Works), ..Answers::default() };
        let mut other = one.clone();
        other.prompts[1] = answer(7, "c");
        other.prompts[2] = answer(5, "a c");
        other.prompts[3] = None;
        other.tool = Some(Ability::Refused(String::new()));
        one.form = Some(Ability::Unfinished);
        let member = |name, answers| Member { name, engine: "vllm 1".to_owned(), context: None, answers };
        let drawn = parity("llm", &[member("one", &one), member("other", &other)]);
        let expect = [
            "llm            one         other",
            "  engine       vllm 1      vllm 1",
            "  context      -           -",
            "  plain        5           5, 2/2 alike",
            "  system       5           7             differs",
            "  multi-turn   5           5, 1/2 alike  parts",
            "  code         5           -",
            "  unicode      5           5, 2/2 alike",
            "  emoji        5           5, 2/2 alike",
            "  whitespace   5           5, 2/2 alike",
            "  digits       5           5, 2/2 alike",
            "  special      5           5, 2/2 alike",
            "  long         5           5, 2/2 alike",
            "  tool call    works       refused       differs",
            "  JSON schema  unfinished  -",
        ];
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_backend_that_gave_no_token_is_down() {
        let row = |name, took| Row { name, engine: "vllm".to_owned(), model: "m", context: Some(8), took };
        let drawn = backends(&[row("a", Some(Duration::from_millis(12))), row("b-2", None)]);
        let expect = [
            "backend  engine  model  context  one token",
            "a        vllm    m      8        12 ms",
            "b-2      vllm    m      8        DOWN",
        ];
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expect);
    }
}
