//! From a fleet file to what is simulated: an engine for each backend, and what stands in for what.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use outrigger_core::fleet::{self, Backend, Fleet, ModelId};
use outrigger_plan::{
    perf,
    sim::{Curve, Engine, Happening, Setup},
};

use super::{Args, grid::Run, place};
use crate::{commands::input::Failed, config};

/// A simulation that can be run, and what its user should know of it.
pub(super) struct Ready {
    pub(super) setup: Setup,
    pub(super) notes: Vec<String>,
}

/// What stands in where nothing comparable was measured: the model, its GPU and their number.
const STAND_IN: (&str, &str, u32) = ("Llama-3.1-70B", "h100", 4);
/// Requests that a hosted API runs at once, as far as anyone knows.
const HOSTED_SLOTS: usize = 4_096;
/// A hosted API's time to first token and time for each one after it, in seconds: typical of small models.
const HOSTED_TTFT: f64 = 0.45;
const HOSTED_PACE: f64 = 0.012;

pub(super) fn load(run: &Run, args: &Args) -> Result<Ready, Failed> {
    let path: &Path = &run.fleet;
    let mut fleet = config::load(path).map_err(|error| Failed::of_config(path, &error))?.fleet;
    if let Some(mode) = run.mode {
        fleet.models.iter_mut().for_each(|model| model.mode = mode);
    }
    let mut notes = Vec::new();
    let engines = fleet.backends.iter().map(|b| engine(&fleet, b, &mut notes)).collect();
    let model = match &args.model {
        None => ModelId(0),
        Some(name) => fleet.model_by_name(name).ok_or_else(|| {
            let known: Vec<&str> = fleet.models.iter().map(|m| m.name.as_str()).collect();
            Failed::usage(format!("{}: no model `{name}`\n  help: name one of: {}", path.display(), known.join(", ")))
        })?,
    };
    if fleet.models.is_empty() {
        return Err(Failed::usage(format!("{}: no model is in this fleet", path.display())));
    }
    let names: BTreeMap<String, ModelId> = (fleet.models.iter().enumerate())
        .flat_map(|(i, m)| m.aliases.iter().chain([&m.name]).map(move |n| (n.clone(), ModelId(i as u16))))
        .collect();
    let happenings = events(args, &fleet)?;
    let scrape_every = (args.scrape_every > 0.0).then(|| Duration::from_secs_f64(args.scrape_every.clamp(0.01, 1e6)));
    let places = place::places(&args.place, &fleet, &mut notes);
    let setup = Setup {
        fleet: Arc::new(fleet),
        engines,
        seed: run.seed,
        model,
        names,
        happenings,
        scrape_every,
        pools_are_warm: args.warm,
        places,
    };
    Ok(Ready { setup, notes })
}

fn engine(fleet: &Fleet, backend: &Backend, notes: &mut Vec<String>) -> Engine {
    if let Some(rate) = backend.constant_rate {
        return Engine {
            curve: Arc::new(Curve::constant(rate.slots, rate.tokens_per_second)),
            servers: 1,
            has_deadlines: false,
            source: format!("{} slots of {} tokens/s", rate.slots, rate.tokens_per_second),
        };
    }
    if backend.pool.is_none() && backend.engine == fleet::Engine::Openai {
        let slots = HOSTED_SLOTS;
        return Engine {
            curve: Arc::new(Curve::from_tables(vec![HOSTED_PACE; slots], vec![HOSTED_TTFT; slots], vec![0.0; slots])),
            servers: 1,
            has_deadlines: true,
            source: format!("hosted, assumed: {HOSTED_TTFT} s to the first token, {HOSTED_PACE} s for each other"),
        };
    }
    let gpu = backend.pool.map_or(STAND_IN.1, |pool| &fleet.pools[pool.index()].gpu);
    let (curve, source) = measured(backend, gpu);
    notes.push(format!("{}: {source}", backend.name));
    Engine { curve: Arc::new(curve), servers: backend.replicas.max(1), has_deadlines: true, source }
}

/// The measured engine that is nearest to this one, and what stood in for what.
fn measured(backend: &Backend, gpu: &str) -> (Curve, String) {
    let engine = engine_name(backend.engine);
    if let Some((key, curve, stood_in)) = perf::lookup(&backend.model, gpu, backend.gpus_per_replica, engine) {
        let source = if stood_in.is_empty() { format!("measured on {key}") } else { stood_in };
        return (Curve::measured(&curve), source);
    }
    let stand_in = perf::lookup(STAND_IN.0, STAND_IN.1, STAND_IN.2, "vllm");
    let source = format!(
        "nothing like {} on {} x {gpu} was measured: {} on {} x {} stands in",
        backend.model, backend.gpus_per_replica, STAND_IN.0, STAND_IN.2, STAND_IN.1
    );
    let curve = stand_in.map_or_else(|| Curve::constant(64, 50.0), |(_, curve, _)| Curve::measured(&curve));
    (curve, source)
}

fn engine_name(engine: fleet::Engine) -> &'static str {
    match engine {
        fleet::Engine::Sglang => "sglang",
        fleet::Engine::Trtllm => "trtllm",
        _ => "vllm",
    }
}

fn events(args: &Args, fleet: &Fleet) -> Result<Vec<Happening>, Failed> {
    let Some(path) = &args.events else { return Ok(Vec::new()) };
    let text =
        fs::read_to_string(path).map_err(|e| Failed::environment(format!("cannot read {}: {e}", path.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let parse = |(i, line): (usize, &str)| {
        let at = |message: String, help: &str| {
            Failed::usage(format!("{}: row {}: {message}\n  help: {help}", path.display(), i + 1))
        };
        let happening = Happening::parse(line).map_err(|message| {
            at(message, "write one event a line, such as {\"event\":\"outage\",\"cloud\":\"lambda\",\"at_s\":600,\"for_s\":300}")
        })?;
        if let Some(name) = &happening.backend
            && fleet.backend_by_name(name).is_none()
        {
            let known: Vec<&str> = fleet.backends.iter().map(|b| b.name.as_str()).collect();
            return Err(at(format!("there is no backend `{name}`"), &format!("name one of: {}", known.join(", "))));
        }
        if let Some(name) = &happening.cloud
            && !fleet.clouds.iter().any(|c| c.name == *name)
        {
            let known: Vec<&str> = fleet.clouds.iter().map(|c| c.name.as_str()).collect();
            return Err(at(format!("there is no cloud `{name}`"), &format!("name one of: {}", known.join(", "))));
        }
        Ok(happening)
    };
    lines.map(parse).collect()
}
