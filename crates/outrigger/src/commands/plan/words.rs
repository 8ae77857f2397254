//! A plan as tables for people.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Choice, Evaluated, Flip, Fractile, Plan, WrongIf, dollars};

use super::{Planned, options};

pub(super) fn plan(planned: &Planned) -> String {
    let Planned { scenario, plan, stale, as_of } = planned;
    let mut out = format!("{}, on {as_of}; a month is 730 hours\n\n", scenario.name);
    out += &today(plan);
    out += &verdict(planned);
    out += "\n";
    out += &options::table(plan, scenario.horizon_months);
    out += "\n";
    out += &options::machines(plan);
    let watched = plan.verdict.challenger.as_deref().and_then(|id| plan.choice(id));
    if let Some((choice, done)) = watched.and_then(|choice| Some((choice, choice.evaluated.as_ref()?))) {
        out += &about(choice, done, scenario.horizon_months);
    }
    out += &egress(plan);
    out += &wrong_if(plan);
    let _ = writeln!(out, "\nnot included");
    for what in &plan.not_included {
        let _ = writeln!(out, "  {what}");
    }
    let oldest = stale.oldest.as_ref().map_or_else(String::new, |o| format!("; the oldest that moves the total: {o}"));
    let _ = writeln!(out, "\n{} of {} prices older than 30 days{oldest}", stale.older, stale.of);
    for row in &stale.decisive {
        let _ = writeln!(out, "a fifth more or less of this price would change the answer: {row}");
    }
    for gap in scenario.clouds.iter().flat_map(|cloud| &cloud.gaps) {
        let _ = writeln!(out, "gap: {gap}");
    }
    out
}

/// The ways to pay less for what leaves a cloud, edge by edge.
fn egress(plan: &Plan) -> String {
    let mut out = String::new();
    let mut stay = None;
    for edge in &plan.mitigations {
        let (gb, usd) = (edge.gb, dollars(edge.usd));
        let _ = writeln!(out, "\negress of {}, {} to {}: {gb:.0} GB, {usd}", edge.edge, edge.from, edge.to);
        for (way, says) in &edge.ways {
            // The same for every edge.
            if *way == STAY {
                stay = Some(says);
                continue;
            }
            let _ = writeln!(out, "  {way:<18} {says}");
        }
    }
    if let Some(says) = stay {
        let _ = writeln!(out, "\nto pay for no egress between clouds, {STAY}: {says}");
    }
    out
}

const STAY: &str = "stay single-cloud";

/// The bill by line, and what of the invoice it does not explain.
fn today(plan: &Plan) -> String {
    let Some(done) = &plan.choices[0].evaluated else { return String::new() };
    let mut out = String::from("today, each month\n");
    for (name, amount) in lines(done).into_iter().filter(|(_, amount)| *amount != NanoUsd::ZERO) {
        let _ = writeln!(out, "  {name:<28} {:>16}", dollars(amount));
    }
    let _ = writeln!(out, "  {:<28} {:>16}", "in all", dollars(done.total));
    if !plan.ties.is_empty() {
        let invoiced: NanoUsd = plan.ties.iter().map(|tie| tie.invoiced).sum();
        let computed: NanoUsd = plan.ties.iter().map(|tie| tie.computed).sum();
        let _ = writeln!(out, "  {:<28} {:>16}", "invoice (without people)", dollars(invoiced));
        let rest = invoiced - computed;
        let share = if invoiced.0 == 0 { 0.0 } else { rest.as_usd() / invoiced.as_usd() * 100.0 };
        let _ = writeln!(out, "  {:<28} {:>16}  {share:.1} % of the invoice", "  unexplained", dollars(rest));
        for tie in plan.ties.iter().filter(|tie| tie.invoiced != tie.computed) {
            let rest = dollars(tie.invoiced - tie.computed);
            let _ = writeln!(out, "    {:<26} {rest:>16}", tie.kind.as_str());
        }
    }
    out + "\n"
}

pub(super) fn lines(done: &Evaluated) -> [(&'static str, NanoUsd); 8] {
    [
        ("GPUs on demand", done.on_demand),
        ("GPUs reserved", done.reserved),
        ("GPUs committed", done.committed),
        ("tokens", done.tokens),
        ("egress", done.egress),
        ("weights", done.weights),
        ("other", done.other),
        ("people", done.people),
    ]
}

fn verdict(planned: &Planned) -> String {
    let verdict = &planned.plan.verdict;
    let mut out = String::new();
    let head = if verdict.worth_it { format!("worth it: {}", verdict.option) } else { "not worth it".to_owned() };
    let _ = writeln!(out, "{head}");
    for why in reasons(&planned.plan) {
        let _ = writeln!(out, "  {why}");
    }
    out
}

/// Why the verdict is what it is, which rules fired, from which spend on, and what would turn it.
pub(super) fn reasons(plan: &Plan) -> Vec<String> {
    let verdict = &plan.verdict;
    let mut reasons = verdict.why.clone();
    if !verdict.rules.is_empty() {
        let rules: Vec<&str> = verdict.rules.iter().map(|rule| rule.as_str()).collect();
        reasons.push(format!("rules: {}", rules.join(", ")));
    }
    if let (Some(spend), Some(challenger)) = (verdict.break_even, &verdict.challenger) {
        reasons.push(if spend.0 == 0 {
            format!("{challenger} takes no more people and nothing once, and so pays at any spend")
        } else {
            format!("{challenger} pays from a spend of {} a month on (people apart)", dollars(spend))
        });
    }
    reasons.push(match plan.flips.first() {
        Some(flip) => format!("the answer turns if the {}", flipped(*flip)),
        None => "no single input between a hundredth and five times its value turns the answer".to_owned(),
    });
    reasons
}

/// What a decision wants to know of one option.
fn about(choice: &Choice, done: &Evaluated, months: u32) -> String {
    let mut out = format!("\n{}\n", choice.id);
    for (name, amount) in lines(done).into_iter().filter(|(_, amount)| *amount != NanoUsd::ZERO) {
        let _ = writeln!(out, "  {name:<28} {:>16}", dollars(amount));
    }
    let _ = writeln!(out, "  {:<28} {:>16}", "in all", dollars(done.total));
    let _ = writeln!(out, "  {:<28} {:>16}", "first month", dollars(choice.worst_month));
    let _ = writeln!(out, "  {:<28} {:>16}", format!("all in, over {months} months"), dollars(choice.all_in));
    let _ = writeln!(out, "  {:<28} {:>16}", "remaining liability", dollars(done.liability));
    for (cloud, share) in &done.survives {
        let _ = writeln!(out, "  {:<28} {:>14.1} %", format!("left without {cloud}"), share * 100.0);
    }
    if let Some(cover) = done.cover {
        let _ = writeln!(out, "  {:<28} {:>16}", "to survive any loss, more", dollars(cover));
    }
    for Fractile { cloud, price_ratio, time_above } in &done.fractiles {
        let (ratio, above) = (price_ratio * 100.0, time_above * 100.0);
        let _ = writeln!(
            out,
            "  the base at {cloud} is exceeded {above:.1} % of the time; its price is {ratio:.1} % of a burst's"
        );
    }
    for (hosted, rps) in &choice.hosted_break_even {
        let _ = writeln!(out, "  below {rps:.2} requests/s {hosted} would cost less");
    }
    if !done.weights_by.is_empty() {
        let _ = writeln!(out, "  weights: {}", done.weights_by);
    }
    for (against, saved) in choice.savings.iter().filter(|(against, _)| *against != "today") {
        let _ = writeln!(out, "  {:<28} {:>16}", format!("saves against {against}"), dollars(*saved));
    }
    out
}

fn flipped(flip: Flip) -> String {
    let how = if flip.at < 1_000 { "falls" } else { "rises" };
    format!("{} {how} by {}", flip.input.as_str(), amount(flip.at))
}

fn wrong_if(plan: &Plan) -> String {
    if plan.wrong_if.is_empty() {
        return String::new();
    }
    let watched = plan.verdict.challenger.as_deref().unwrap_or("today");
    let mut out = format!("\n{watched} is wrong by more than 10 % if\n");
    for WrongIf { input, below, above } in &plan.wrong_if {
        let ends = [("falls", *below), ("rises", *above)];
        let ends = ends.into_iter().filter_map(|(how, at)| Some(format!("{how} by {}", amount(at?))));
        let _ = writeln!(out, "  {:<28} {}", input.as_str(), ends.collect::<Vec<_>>().join(" or "));
    }
    out
}

/// The change to so many thousandths, without its sign.
fn amount(thousandths: u32) -> String {
    format!("{:.1} %", (f64::from(thousandths) / 10.0 - 100.0).abs())
}
