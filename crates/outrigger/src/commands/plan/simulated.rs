//! `outrigger plan --simulate`: the machines of an option under the demand that they were planned for, played through
//! the simulator with the gateway's own decision core.
//!
//! The option becomes a fleet file: a pool for what is there all the time, and one on demand behind it that follows what
//! the gateway asks for, each step after its cold start and by the hour. The plan knows the demand beforehand and pays
//! bursts by the second; what that is worth is the difference that is shown. Arrivals are Poisson; lengths of answers
//! have a Weibull distribution with the scenario's variation.

use std::{fmt::Write as _, path::Path, sync::Arc};

use outrigger_core::{fleet::ModelId, units::NanoUsd};
use outrigger_plan::{
    economics::{Demand, Machines, Stage, cents, closed_wait_p95, dollars, stages},
    sim::{self, Curve, Engine, Report, SCRAPE_EVERY, Setup},
    trace::{Quantiles, RateCurve, generate},
};
use serde_json::{Value, json};

use super::{Args, Exit, Failed, Planned, json::usd, write_out};
use crate::config;

/// Requests that are played at most: of a longer demand each level is shortened by the same factor.
const MOST_REQUESTS: f64 = 2e6;

struct Played {
    id: String,
    report: Report,
    shortened: f64,
    /// Seconds.
    closed_p95: f64,
    /// Of GPUs, for a month.
    planned_usd: NanoUsd,
    simulated_usd: NanoUsd,
    bursts: Option<Bursts>,
    notes: Vec<&'static str>,
}

/// What is rented above the bases, in machine-hours of a month.
struct Bursts {
    planned: f64,
    simulated: f64,
}

impl Bursts {
    /// `None` without bursts, or where machines of different prices serve them, so that money does not say how many hours.
    fn of(stages: &[Stage], planned: NanoUsd, simulated: NanoUsd) -> Option<Self> {
        let mut prices = stages.iter().filter_map(|stage| Some(stage.burst.as_ref()?.usd_per_hour_each));
        let price = prices.next().filter(|price| price.0 > 0 && prices.all(|other| other == *price))?;
        let hours = |usd: NanoUsd| usd.as_usd() / price.as_usd();
        Some(Self { planned: hours(planned), simulated: hours(simulated) })
    }
}

pub(super) fn answer(planned: &Planned, args: &Args) -> Result<Exit, Failed> {
    let plan = &planned.plan;
    let choice = match &args.option {
        None => plan.chosen(),
        Some(id) => plan.choice(id).ok_or_else(|| {
            let known: Vec<&str> = plan.choices.iter().map(|choice| choice.id.as_str()).collect();
            Failed::usage(format!("there is no option {id}\n  help: give one of: {}", known.join(", ")))
        })?,
    };
    let stages = stages(&planned.scenario, choice);
    let Some(done) = choice.evaluated.as_ref().filter(|_| !stages.is_empty()) else {
        let help = "give an option with GPUs in the clouds of the scenario by --option";
        return Err(Failed::usage(format!("{} has no machines that could be simulated\n  help: {help}", choice.id)));
    };
    let (report, shortened) = play(&planned.scenario.demand, &stages, args.seed)?;
    let month = 730.0 * 3_600.0 / report.duration_s.max(1e-9);
    let gpu = report.cost_nano_usd.gpu.as_usd() * month;
    let mut notes = Vec::new();
    if stages.iter().any(|stage| stage.burst.is_some()) {
        notes.push(
            "bursts: the plan knows the demand and pays by the second. The pool is rented by the hour once requests find no \
             room, and kept for an hour after nine tenths of the base would have held all that ran at once",
        );
    }
    if (planned.scenario.demand.arrival_cv - 1.0).abs() > 1e-9 {
        notes.push("arrivals: played as Poisson; the plan has the scenario's arrival_cv");
    }
    if !planned.scenario.commitments.is_empty() {
        notes.push("commitments: machines that are committed are played at the price of those rented beside them");
    }
    let simulated_usd = NanoUsd::from_usd(gpu).unwrap_or_default();
    let played = Played {
        id: choice.id.clone(),
        closed_p95: closed_wait_p95(&stages),
        planned_usd: done.on_demand + done.reserved,
        simulated_usd,
        bursts: Bursts::of(&stages, done.on_demand, simulated_usd - done.reserved),
        report,
        shortened,
        notes,
    };
    Ok(write_out(&if args.json { format!("{}\n", as_json(&played)) } else { words(&played) }))
}

fn play(demand: &Demand, stages: &[Stage], seed: u64) -> Result<(Report, f64), Failed> {
    let bug = |what: &str| Failed::environment(format!("{what}: a bug in Outrigger; please report it"));
    let yaml = fleet(stages);
    let loaded = config::load_str(&yaml, Path::new("/"))
        .map_err(|faults| bug(&format!("the option makes no fleet\n{}\n{yaml}", faults.render(false))))?;
    let setup = Setup {
        fleet: Arc::new(loaded.fleet),
        engines: stages
            .iter()
            .flat_map(|stage| [Some(&stage.steady), stage.burst.as_ref()])
            .flatten()
            .filter(|machines| machines.replicas > 0)
            .map(engine)
            .collect(),
        seed,
        model: ModelId(0),
        names: std::collections::BTreeMap::new(),
        happenings: Vec::new(),
        scrape_every: Some(SCRAPE_EVERY),
        pools_are_warm: false,
        places: Vec::new(),
    };
    let expected: f64 = demand.levels.iter().map(|level| level.seconds as f64 * level.micro_rps as f64 / 1e6).sum();
    let shortened = (MOST_REQUESTS / expected.max(1.0)).min(1.0);
    let mut rates = "window_start_s,rps\n".to_owned();
    let mut at = 0.0;
    for level in &demand.levels {
        let _ = writeln!(rates, "{at},{}", level.micro_rps as f64 / 1e6);
        at += level.seconds as f64 * shortened;
    }
    // The last window is as long as the one before it, so that a short one of nothing ends the demand.
    let _ = writeln!(rates, "{at},0");
    let wrong = |fault: outrigger_plan::trace::TraceFault| bug(&fault.to_string());
    let rates = RateCurve::from_csv(rates.as_bytes(), "rps").map_err(wrong)?;
    let rates = rates.first(std::time::Duration::from_secs_f64(at));
    let lengths = Quantiles::from_csv(lengths(demand).as_bytes(), "prompt_tokens", "output_tokens").map_err(wrong)?;
    let arrivals = generate(rates, lengths, seed, None).map(|arrival| Ok((arrival, None)));
    let report = sim::run(&setup, arrivals, |_, _| true).map_err(wrong)?;
    Ok((report, shortened))
}

fn engine(machines: &Machines) -> Engine {
    let fit = &machines.fit;
    let slots = fit.slots as usize;
    let per_token = vec![fit.tpot_ms / 1e3; slots];
    Engine {
        curve: Arc::new(Curve::from_tables(per_token, vec![fit.ttft_ms / 1e3; slots], vec![0.0; slots])),
        servers: machines.replicas,
        has_deadlines: false,
        source: format!("{} slots, {:.1} ms and {:.2} ms a token", fit.slots, fit.ttft_ms, fit.tpot_ms),
    }
}

/// A pool and a backend for each kind of machine; tiers where there are bursts.
fn fleet(stages: &[Stage]) -> String {
    let (mut pools, mut backends, mut first, mut second) = (String::new(), String::new(), String::new(), String::new());
    let mut wait_ms: f64 = 1.0;
    for (i, stage) in stages.iter().enumerate() {
        for (kind, machines) in [("steady", Some(&stage.steady)), ("burst", stage.burst.as_ref())] {
            let Some(machines) = machines.filter(|machines| machines.replicas > 0) else { continue };
            let name = format!("{kind}-{i}");
            let gpus = machines.count * machines.gpus_each;
            let each = machines.usd_per_hour_each.as_usd() / f64::from(machines.gpus_each);
            let price = if kind == "steady" {
                format!("gpus: {gpus}, reserved: {{ usd_per_gpu_hour: {each:.9} }}")
            } else {
                let (step, cold) = (machines.gpus_each, machines.cold_start_s);
                format!(
                    "gpus: {{ min: 0, max: {gpus}, step: {step} }}, on_demand: {{ usd_per_gpu_hour: {each:.9}, \
                     billing_block: 1h, cold_start: {cold}s }}"
                )
            };
            let _ = writeln!(pools, "  {name}: {{ cloud: c{i}, gpu: x, {price} }}");
            // A replica that takes several machines takes all of their GPUs.
            let whole = machines.replica_gpus.div_ceil(machines.gpus_each) * machines.gpus_each;
            let each = if machines.replica_gpus > machines.gpus_each { whole } else { machines.replica_gpus };
            let flight = machines.fit.slots * machines.replicas;
            let _ = writeln!(
                backends,
                "  {name}: {{ pool: {name}, replicas: {}, gpus_per_replica: {each}, engine: vllm, max_in_flight: {flight}, \
                 url: \"http://127.0.0.1:9/v1\", model: m }}",
                machines.replicas
            );
            let entry = format!("{name}: {}, ", stage.percent);
            let tier = if kind == "steady" { &mut first } else { &mut second };
            *tier += &entry;
            wait_ms = wait_ms.max(machines.fit.wait_s * 1e3);
        }
    }
    let clouds: String = (0..stages.len()).map(|i| format!("  c{i}: {{}}\n")).collect();
    let spill = format!("{{ {second} }}\n        enter_when: {{ wait_above: {:.0}ms }}\n", (wait_ms / 2.0).max(1.0));
    let tiers = match (first.is_empty(), second.is_empty()) {
        (false, true) => format!("      - split: {{ {first} }}\n"),
        (true, _) => format!("      - split: {{ {second} }}\n"),
        (false, false) => format!("      - split: {{ {first} }}\n      - split: {spill}"),
    };
    let tiers = tiers.replace(", }", " }");
    format!(
        "version: 1\nclouds:\n{clouds}pools:\n{pools}backends:\n{backends}models:\n  m:\n    affinity: none\n    tiers:\n{tiers}"
    )
}

/// Lengths of answers as quantiles, of the Weibull distribution with their mean and variation, which is the exponential one
/// at a variation of 1; prompts have their mean.
fn lengths(demand: &Demand) -> String {
    let (mean, prompt) = (demand.output_milli as f64 / 1e3, demand.prompt_milli as f64 / 1e3);
    let shape = weibull_shape(demand.output_cv);
    let scale = mean / gamma(1.0 + 1.0 / shape);
    let mut out = "quantile,prompt_tokens,output_tokens\n".to_owned();
    // The tail is what makes queues: it gets finer steps.
    let body = (0..990).map(|step| f64::from(step) / 1e3);
    let tail = (0..=400).map(|step| 1.0 - 0.01 * (-f64::from(step) / 50.0).exp());
    for share in body.chain(tail) {
        let tokens = (scale * (-(1.0 - share).ln()).powf(1.0 / shape)).clamp(0.5, 1e7);
        let _ = writeln!(out, "{share:.9},{prompt},{tokens:.3}");
    }
    out
}

/// The shape whose variation this is; between 0.25 and 50, which is a variation from 8.2 down to 0.03.
fn weibull_shape(cv: f64) -> f64 {
    let of = |shape: f64| (gamma(1.0 + 2.0 / shape) / gamma(1.0 + 1.0 / shape).powi(2) - 1.0).max(0.0).sqrt();
    let (mut low, mut high) = (0.25_f64, 50.0_f64);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        let varies_more = of(middle) > cv;
        let end = if varies_more { &mut low } else { &mut high };
        *end = middle;
    }
    (low * high).sqrt()
}

/// The gamma function by Stirling's series, from 10 on, and down from there by its recurrence.
fn gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 1.0);
    while x < 10.0 {
        below *= x;
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1_260.0 * x.powi(5));
    ((x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series).exp() / below
}

fn words(played: &Played) -> String {
    let Played { id, report, .. } = played;
    let mut out = format!(
        "{id}: {} requests over {:.1} h, {} failed\n",
        report.requests,
        report.duration_s / 3_600.0,
        report.failed
    );
    if played.shortened < 1.0 {
        let percent = played.shortened * 100.0;
        let _ = writeln!(out, "each level is played for {percent:.2} % of its time");
    }
    let _ = writeln!(out, "{:<28} {:>16} {:>16}", "", "plan", "simulated");
    let (a, b) = (dollars(played.planned_usd), dollars(played.simulated_usd));
    let _ = writeln!(out, "{:<28} {a:>16} {b:>16}", "GPUs rented, a month");
    if let Some(Bursts { planned, simulated }) = played.bursts {
        let _ = writeln!(out, "{:<28} {planned:>14.0} h {simulated:>14.0} h", "  machine-hours of bursts");
    }
    let (a, b) = (played.closed_p95 * 1e3, report.wait_ms.p95);
    let _ = writeln!(out, "{:<28} {a:>13.0} ms {b:>13.0} ms", "wait p95");
    let _ = writeln!(out, "{:<28} {:>16} {:>13.0} ms", "time to first token p95", "", report.ttft_ms.p95);
    for note in &played.notes {
        let _ = writeln!(out, "{note}");
    }
    out
}

fn as_json(played: &Played) -> Value {
    let Played { id, report, bursts, .. } = played;
    json!({
        "option": id,
        "requests": report.requests,
        "failed": report.failed,
        "part_of_each_level": played.shortened,
        "gpu_usd_per_month": { "plan": usd(played.planned_usd), "simulated": cents(played.simulated_usd) as f64 / 100.0 },
        "burst_machine_hours_per_month": bursts.as_ref().map(|b| json!({ "plan": b.planned, "simulated": b.simulated })),
        "wait_p95_ms": { "plan": played.closed_p95 * 1e3, "simulated": report.wait_ms.p95 },
        "ttft_p95_ms": report.ttft_ms.p95,
        "spilled": report.spilled,
        "notes": played.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_is_the_factorials_and_the_root_of_pi() {
        for (x, expected) in [(1.0, 1.0), (5.0, 24.0), (0.5, std::f64::consts::PI.sqrt()), (11.0, 3_628_800.0)] {
            assert!((gamma(x) / expected - 1.0).abs() < 1e-9, "{x}: {}", gamma(x));
        }
        assert!((weibull_shape(1.0) - 1.0).abs() < 1e-9);
        assert!((weibull_shape(0.5) - 2.1013).abs() < 1e-3, "{}", weibull_shape(0.5));
    }
}
