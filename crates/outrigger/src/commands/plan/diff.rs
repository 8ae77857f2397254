//! Two scenarios beside each other, as Markdown: what a change of the file changes in the answer.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Choice, dollars};
use serde_json::{Value, json};

use super::{Exit, Planned, json::usd, write_out};

pub(super) fn answer(old: &Planned, new: &Planned, as_json: bool) -> Exit {
    write_out(&if as_json { format!("{}\n", in_json(old, new)) } else { markdown(old, new) })
}

fn total(choice: Option<&Choice>) -> Option<NanoUsd> {
    Some(choice?.evaluated.as_ref()?.total)
}

/// The ids of both, those of the new one first.
fn ids<'p>(old: &'p Planned, new: &'p Planned) -> Vec<&'p str> {
    let mut ids: Vec<&str> = new.plan.choices.iter().map(|choice| choice.id.as_str()).collect();
    for choice in &old.plan.choices {
        if !ids.contains(&choice.id.as_str()) {
            ids.push(&choice.id);
        }
    }
    ids
}

fn verdict(planned: &Planned) -> String {
    let verdict = &planned.plan.verdict;
    let rules: Vec<&str> = verdict.rules.iter().map(|rule| rule.as_str()).collect();
    let rules = if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) };
    if verdict.worth_it { format!("worth it: `{}`{rules}", verdict.option) } else { format!("not worth it{rules}") }
}

fn markdown(old: &Planned, new: &Planned) -> String {
    let mut out = format!("### {}\n\n", new.scenario.name.replace(['\n', '|'], " "));
    let (before, after) = (verdict(old), verdict(new));
    out += &if before == after {
        format!("The answer stays: {after}.\n\n")
    } else {
        format!("**The answer changes** from {before} to {after}.\n\n")
    };
    out += "| option | before | after | change |\n|---|---:|---:|---:|\n";
    let shown = |amount: Option<NanoUsd>| amount.map_or_else(|| "-".to_owned(), dollars);
    for id in ids(old, new) {
        let (before, after) = (total(old.plan.choice(id)), total(new.plan.choice(id)));
        if before == after && id != "today" && id != new.plan.verdict.option {
            continue;
        }
        let change = match before.zip(after) {
            Some((before, after)) if before == after => "none".to_owned(),
            Some((before, after)) => {
                let (more, percent) = (after - before, (after.as_usd() / before.as_usd() - 1.0) * 100.0);
                let sign = if more.0 > 0 { "+" } else { "" };
                format!("{sign}{} ({percent:+.1} %)", dollars(more))
            }
            None => "-".to_owned(),
        };
        let _ = writeln!(out, "| `{id}` | {} | {} | {change} |", shown(before), shown(after));
    }
    let same = ids(old, new).iter().filter(|id| total(old.plan.choice(id)) == total(new.plan.choice(id))).count();
    let _ = writeln!(out, "\n{same} options cost the same in both. USD a month, prices as of {}.", new.as_of);
    for why in &new.plan.verdict.why {
        let _ = writeln!(out, "- {why}");
    }
    out
}

fn in_json(old: &Planned, new: &Planned) -> Value {
    let option = |id: &str| {
        let (before, after) = (total(old.plan.choice(id)), total(new.plan.choice(id)));
        let change = before.zip(after).map(|(before, after)| usd(after - before));
        json!({ "id": id, "before_usd": before.map(usd), "after_usd": after.map(usd), "change_usd": change })
    };
    let answer = |planned: &Planned| {
        let verdict = &planned.plan.verdict;
        let rules: Vec<&str> = verdict.rules.iter().map(|rule| rule.as_str()).collect();
        json!({ "worth_it": verdict.worth_it, "option": verdict.option, "rules": rules })
    };
    let options: Vec<Value> = ids(old, new).into_iter().map(option).collect();
    json!({ "before": answer(old), "after": answer(new), "options": options })
}
