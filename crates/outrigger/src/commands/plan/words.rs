//! A plan as tables for people.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Choice, Evaluated, Flip, Plan, WrongIf, dollars};

use super::{super::name_column, Planned};

pub(super) fn plan(planned: &Planned) -> String {
    let Planned { scenario, plan, stale, as_of } = planned;
    let mut out = format!("{}, on {as_of}; a month is 730 hours\n\n", scenario.name);
    out += &today(plan);
    out += &table(plan);
    out += &verdict(planned);
    for edge in &plan.mitigations {
        let (gb, usd) = (edge.gb, dollars(edge.usd));
        let _ = writeln!(out, "\negress of {} from {} to {}: {gb:.0} GB, {usd}", edge.edge, edge.from, edge.to);
        for (way, says) in &edge.ways {
            let _ = writeln!(out, "  {way:<18} {says}");
        }
    }
    let watched = plan.verdict.challenger.as_deref().unwrap_or("today");
    let wrong: Vec<String> = plan.wrong_if.iter().map(wrong_if).collect();
    if !wrong.is_empty() {
        let _ = writeln!(out, "\n{watched} is wrong by more than 10 % if {}", wrong.join("; if "));
    }
    let _ = writeln!(out, "\nnot included: {}", plan.not_included.join("; "));
    let oldest = stale.oldest.as_ref().map_or_else(String::new, |o| format!("; the oldest that moves the total: {o}"));
    let _ = writeln!(out, "{} of {} prices older than 30 days{oldest}", stale.older, stale.of);
    for row in &stale.decisive {
        let _ = writeln!(out, "a fifth more or less of this price would change the answer: {row}");
    }
    for gap in scenario.clouds.iter().flat_map(|cloud| &cloud.gaps) {
        let _ = writeln!(out, "gap: {gap}");
    }
    out
}

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

fn table(plan: &Plan) -> String {
    let width = name_column(plan.choices.iter().map(|choice| choice.id.as_str()));
    let mut out = format!(
        "{:<width$} {:>15} {:>15} {:>27} {:>13} {:>8} {:>13} {:>8}  GPUs; why not\n",
        "option", "$ a month", "saves", "p10 to p90", "egress", "survives", "to get there", "payback"
    );
    for choice in &plan.choices {
        let Some(done) = &choice.evaluated else {
            let _ = writeln!(out, "{:<width$} {:>15}  {}", choice.id, "-", choice.reason);
            continue;
        };
        let range = format!("{} to {}", short(choice.range.0), short(choice.range.1));
        let worst = done.survives.values().copied().fold(f64::INFINITY, f64::min);
        let survives = if worst.is_finite() { format!("{:.0} %", worst * 100.0) } else { "-".to_owned() };
        let saves = choice.savings.get("today").map_or_else(|| "-".to_owned(), |saved| dollars(*saved));
        let payback = choice.payback_months.map_or_else(|| "-".to_owned(), |months| format!("{months} mo"));
        let _ = writeln!(
            out,
            "{:<width$} {:>15} {saves:>15} {range:>27} {:>13} {survives:>8} {:>13} {payback:>8}  {}",
            choice.id,
            dollars(done.total),
            dollars(done.egress + done.weights),
            dollars(done.one_time),
            said(choice, done),
        );
    }
    out + "\n"
}

fn short(amount: NanoUsd) -> String {
    dollars(NanoUsd(amount.0 / 1_000_000_000 * 1_000_000_000)).trim_end_matches(".00").to_owned()
}

fn said(choice: &Choice, done: &Evaluated) -> String {
    let gpus = |(cloud, gpus): (&String, &u32)| match done.reserved_gpus.get(cloud) {
        Some(reserved) if *reserved > 0 => format!("{cloud} {gpus} ({reserved} reserved)"),
        _ => format!("{cloud} {gpus}"),
    };
    let gpus: Vec<String> = done.gpus.iter().map(gpus).collect();
    let gpus = if gpus.is_empty() { "none".to_owned() } else { gpus.join(", ") };
    if choice.reason.is_empty() { gpus } else { format!("{gpus}; {}", choice.reason) }
}

fn verdict(planned: &Planned) -> String {
    let Planned { scenario, plan, .. } = planned;
    let verdict = &plan.verdict;
    let mut out = String::new();
    let head = if verdict.worth_it { format!("worth it: {}", verdict.option) } else { "not worth it".to_owned() };
    let _ = writeln!(out, "{head}");
    for why in &verdict.why {
        let _ = writeln!(out, "  {why}");
    }
    if !verdict.rules.is_empty() {
        let rules: Vec<&str> = verdict.rules.iter().map(|rule| rule.as_str()).collect();
        let _ = writeln!(out, "  rules: {}", rules.join(", "));
    }
    if let (Some(spend), Some(challenger)) = (verdict.break_even, &verdict.challenger) {
        let spend = dollars(spend);
        let _ = writeln!(out, "  {challenger} pays from a spend of {spend} a month on (people apart)");
    }
    match plan.flips.first() {
        Some(flip) => {
            let _ = writeln!(out, "  the answer turns if {}", flipped(*flip));
        }
        None => out += "  no single input between a hundredth and five times its value turns the answer\n",
    }
    let watched = verdict.challenger.as_deref().and_then(|id| plan.choice(id));
    if let Some((choice, done)) = watched.and_then(|choice| Some((choice, choice.evaluated.as_ref()?))) {
        out += &about(choice, done, scenario.horizon_months);
    }
    out
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
    if let Some((ratio, above)) = done.fractile {
        let (ratio, above) = (ratio * 100.0, above * 100.0);
        let _ =
            writeln!(out, "  the base is exceeded {above:.1} % of the time; its price is {ratio:.1} % of a burst's");
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

fn percent(thousandths: u32) -> String {
    format!("{:+.1} %", f64::from(thousandths) / 10.0 - 100.0)
}

fn flipped(flip: Flip) -> String {
    format!("{} changes by {}", flip.input.as_str(), percent(flip.at))
}

fn wrong_if(wrong: &WrongIf) -> String {
    let ends = [
        wrong.below.map(|at| format!("below {}", percent(at))),
        wrong.above.map(|at| format!("above {}", percent(at))),
    ];
    let ends: Vec<String> = ends.into_iter().flatten().collect();
    format!("{} is {}", wrong.input.as_str(), ends.join(" or "))
}
