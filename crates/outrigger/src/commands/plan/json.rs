//! A plan for programs. Money is USD to the cent, shares are of one.

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Choice, Figure, Fractile, Plan, cents};
use serde_json::{Map, Value, json};

use super::Planned;

/// To the cent.
pub(super) fn usd(amount: NanoUsd) -> Value {
    json!(cents(amount) as f64 / 100.0)
}

fn usd_by<'m>(amounts: impl IntoIterator<Item = (&'m String, &'m NanoUsd)>) -> Value {
    Value::Object(amounts.into_iter().map(|(name, amount)| (name.clone(), usd(*amount))).collect())
}

pub(super) fn figure(figure: &Figure) -> Value {
    json!({ "id": figure.id, "what": figure.what, "formula": figure.formula, "shown": figure.shown() })
}

fn fractile(of: &Fractile) -> Value {
    json!({ "cloud": of.cloud, "price_ratio": of.price_ratio, "time_above_base": of.time_above })
}

pub(super) fn plan(planned: &Planned) -> Value {
    let Planned { scenario, plan, stale, as_of } = planned;
    let verdict = &plan.verdict;
    let gaps: Vec<&String> = scenario.clouds.iter().flat_map(|cloud| &cloud.gaps).collect();
    let edges: Vec<Value> = plan
        .mitigations
        .iter()
        .map(|edge| {
            let ways: Map<String, Value> = edge.ways.iter().map(|(way, says)| ((*way).to_owned(), json!(says))).collect();
            json!({ "edge": edge.edge, "from": edge.from, "to": edge.to, "gb": edge.gb, "usd": usd(edge.usd), "ways": ways })
        })
        .collect();
    json!({
        "scenario": scenario.name,
        "as_of": as_of.to_string(),
        "month_hours": outrigger_plan::economics::MONTH_HOURS,
        "options": plan.choices.iter().map(option).collect::<Vec<_>>(),
        "verdict": {
            "worth_it": verdict.worth_it,
            "option": verdict.option,
            "rules": verdict.rules.iter().map(|rule| rule.as_str()).collect::<Vec<_>>(),
            "break_even_usd": verdict.break_even.map(usd),
            "challenger": verdict.challenger,
            "why": verdict.why,
            "flips": plan.flips.iter().map(|flip| json!({ "input": flip.input.as_str(), "at": f64::from(flip.at) / 1e3 }))
                .collect::<Vec<_>>(),
        },
        "invoice": invoice(plan),
        "egress_edges": edges,
        "wrong_by_a_tenth_if": plan.wrong_if.iter().map(|wrong| json!({
            "input": wrong.input.as_str(),
            "below": wrong.below.map(|at| f64::from(at) / 1e3),
            "above": wrong.above.map(|at| f64::from(at) / 1e3),
        })).collect::<Vec<_>>(),
        "prices": {
            "older_than_30_days": stale.older, "of": stale.of, "oldest_that_moves_the_total": stale.oldest,
            "decisive": stale.decisive,
        },
        "gaps": gaps,
        "not_included": plan.not_included,
    })
}

fn option(choice: &Choice) -> Value {
    let rules: Vec<&str> = choice.barred.iter().map(|(rule, _)| rule.as_str()).collect();
    let mut out = json!({
        "id": choice.id, "kind": choice.kind.as_str(), "feasible": choice.evaluated.is_some(), "rules": rules,
        "reason": choice.reason, "usd_per_month": null, "gpus": {}, "egress_usd": null, "survives": {}, "savings": {},
    });
    let Some(done) = &choice.evaluated else { return out };
    let more = json!({
        "usd_per_month": usd(done.total),
        "gpus": done.gpus,
        "egress_usd": usd(done.egress),
        "survives": done.survives,
        "savings": usd_by(&choice.savings),
        "lines": {
            "on_demand": usd(done.on_demand), "reserved": usd(done.reserved), "committed": usd(done.committed),
            "tokens": usd(done.tokens), "egress": usd(done.egress), "weights": usd(done.weights),
            "other": usd(done.other), "people": usd(done.people),
        },
        "reserved_gpus": done.reserved_gpus,
        "fractiles": done.fractiles.iter().map(fractile).collect::<Vec<_>>(),
        "cover_usd": done.cover.map(usd),
        "one_time_usd": usd(done.one_time),
        "all_in_usd": usd(choice.all_in),
        "payback_months": choice.payback_months,
        "worst_month_usd": usd(choice.worst_month),
        "liability_usd": usd(done.liability),
        "p10_usd": usd(choice.range.0),
        "p90_usd": usd(choice.range.1),
        "hosted_break_even_rps": choice.hosted_break_even,
        "weights_by": done.weights_by,
        "edges": done.edges().map(|edge| json!({
            "edge": edge.name, "from": edge.from, "to": edge.to, "gb": edge.gb, "usd": usd(edge.usd),
        })).collect::<Vec<_>>(),
    });
    if let (Value::Object(out), Value::Object(more)) = (&mut out, more) {
        out.extend(more);
    }
    out
}

fn invoice(plan: &Plan) -> Value {
    if plan.ties.is_empty() {
        return Value::Null;
    }
    let lines: Map<String, Value> = plan
        .ties
        .iter()
        .map(|tie| {
            let rest = usd(tie.invoiced - tie.computed);
            let line = json!({ "computed": usd(tie.computed), "invoiced": usd(tie.invoiced), "unexplained": rest });
            (tie.kind.as_str().to_owned(), line)
        })
        .collect();
    let sum = |of: fn(&outrigger_plan::economics::Tie) -> NanoUsd| plan.ties.iter().map(of).sum::<NanoUsd>();
    let (computed, invoiced) = (sum(|tie| tie.computed), sum(|tie| tie.invoiced));
    json!({
        "lines": lines, "computed": usd(computed), "invoiced": usd(invoiced), "unexplained": usd(invoiced - computed),
    })
}
