//! All options of a plan as two tables: what each costs and why it lost, and what it is made of. Cheapest first.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Choice, Evaluated, Plan, dollars};

use super::super::name_column;

/// Rows that are shown beside today's: with many clouds there are hundreds, and nobody reads the dear ones.
const ROWS: usize = 30;

/// Today, then what can be priced, cheapest first with the move in it, then what cannot.
pub(super) fn sorted(plan: &Plan) -> Vec<&Choice> {
    let Some((today, rest)) = plan.choices.split_first() else { return Vec::new() };
    let mut rest: Vec<&Choice> = rest.iter().collect();
    rest.sort_by_key(|choice| (choice.evaluated.is_none(), choice.all_in));
    std::iter::once(today).chain(rest).collect()
}

pub(super) fn table(plan: &Plan, months: u32) -> String {
    let all = sorted(plan);
    let priced = all.iter().filter(|choice| choice.evaluated.is_some()).count();
    let shown = &all[..priced.min(ROWS + 1)];
    let width = name_column(shown.iter().map(|choice| choice.id.as_str()));
    let mut out = format!(
        "{:<width$} {:>13} {:>13} {:>21} {:>8} {:>8}  {}\n",
        "option", "a month", "saves", "p10 to p90", "survives", "payback", "why not (all in)"
    );
    for choice in shown {
        let Some(done) = &choice.evaluated else { continue };
        let range = format!("{} to {}", whole(choice.range.0), whole(choice.range.1));
        let worst = done.survives.values().copied().fold(f64::INFINITY, f64::min);
        let survives = if worst.is_finite() { format!("{:.0} %", worst * 100.0) } else { "-".to_owned() };
        let saves = choice.savings.get("today").map_or_else(|| "-".to_owned(), |saved| dollars(*saved));
        let payback = choice.payback_months.map_or_else(|| "-".to_owned(), |months| format!("{months} mo"));
        let _ = writeln!(
            out,
            "{:<width$} {:>13} {saves:>13} {range:>21} {survives:>8} {payback:>8}  {}",
            choice.id,
            dollars(done.total),
            choice.reason,
        );
    }
    let left = priced - shown.len();
    if left > 0 {
        let _ = writeln!(out, "and {left} more, all dearer: --json has them");
    }
    for (reason, ids) in without_price(&all) {
        let _ = writeln!(out, "not priced ({reason}): {}", ids.join(", "));
    }
    let _ =
        writeln!(out, "saves: each month against today; all in: with what is paid once spread over {months} months");
    out
}

/// What could not be priced, by reason.
fn without_price<'p>(all: &[&'p Choice]) -> Vec<(&'p str, Vec<&'p str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for choice in all.iter().filter(|choice| choice.evaluated.is_none()) {
        match found.iter_mut().find(|(reason, _)| *reason == choice.reason) {
            Some((_, ids)) => ids.push(&choice.id),
            None => found.push((&choice.reason, vec![&choice.id])),
        }
    }
    found
}

/// What each option is made of, in whole dollars, and its GPUs at the peak.
pub(super) fn machines(plan: &Plan) -> String {
    let all = sorted(plan);
    let priced: Vec<(&Choice, &Evaluated)> =
        all.iter().take(ROWS + 1).filter_map(|choice| Some((*choice, choice.evaluated.as_ref()?))).collect();
    let width = name_column(priced.iter().map(|(choice, _)| choice.id.as_str()));
    let mut out = format!(
        "{:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {}\n",
        "$ a month", "on demand", "reserved", "tokens", "egress", "weights", "people", "once", "GPUs at the peak"
    );
    for (choice, done) in priced {
        let _ = writeln!(
            out,
            "{:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {}",
            choice.id,
            bare(done.on_demand),
            bare(done.reserved + done.committed),
            bare(done.tokens),
            bare(done.egress),
            bare(done.weights),
            bare(done.people),
            bare(done.one_time),
            gpus(done),
        );
    }
    out
}

fn gpus(done: &Evaluated) -> String {
    let each = |(cloud, gpus): (&String, &u32)| match done.reserved_gpus.get(cloud) {
        Some(reserved) if *reserved > 0 => format!("{cloud} {gpus} ({reserved} reserved)"),
        _ => format!("{cloud} {gpus}"),
    };
    let each: Vec<String> = done.gpus.iter().map(each).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

/// Rounded to dollars; `-` for nothing.
fn bare(amount: NanoUsd) -> String {
    if amount.0 == 0 { "-".to_owned() } else { whole(amount).replace('$', "") }
}

fn whole(amount: NanoUsd) -> String {
    let half = 500_000_000 * amount.0.signum();
    dollars(NanoUsd(amount.0.saturating_add(half) / 1_000_000_000 * 1_000_000_000)).trim_end_matches(".00").to_owned()
}
