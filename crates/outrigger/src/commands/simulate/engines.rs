//! What is simulated in a backend's place: as its `engine_model` says, else the nearest engine that was measured.

use std::{path::Path, sync::Arc};

use outrigger_core::fleet::{self, Backend, EngineModel, Fleet};
use outrigger_plan::{
    perf::{self, PerfModel},
    sim::{Curve, Engine},
};

use crate::commands::input::{Failed, measured_rows};

/// What stands in where nothing comparable was measured: the model, its GPU and their number.
const STAND_IN: (&str, &str, u32) = ("Llama-3.1-70B", "h100", 4);
/// Requests that a hosted API runs at once, as far as anyone knows.
const HOSTED_SLOTS: usize = 4_096;
/// A hosted API's time to first token and time for each one after it, in seconds: typical of small models.
const HOSTED_TTFT: f64 = 0.45;
const HOSTED_PACE: f64 = 0.012;

pub(in crate::commands) fn engine(fleet: &Fleet, backend: &Backend, notes: &mut Vec<String>) -> Result<Engine, Failed> {
    let servers = backend.replicas.max(1);
    match &backend.engine_model {
        Some(EngineModel::ConstantRate { slots, tokens_per_second }) => {
            let curve = Arc::new(Curve::constant(*slots, *tokens_per_second));
            let source = format!("{slots} slots of {tokens_per_second} tokens/s");
            Ok(Engine { curve, servers: 1, has_deadlines: false, source })
        }
        Some(EngineModel::Measured { file, slots }) => {
            let (curve, source) = own(file, *slots)?;
            Ok(Engine { curve: Arc::new(curve), servers, has_deadlines: true, source })
        }
        None if backend.pool.is_none() && backend.engine == fleet::Engine::Openai => Ok(hosted()),
        None => {
            let gpu = backend.pool.map_or(STAND_IN.1, |pool| &fleet.pools[pool.index()].gpu);
            let (curve, source) = nearest(backend, gpu);
            notes.push(format!("{}: {source}", backend.name));
            Ok(Engine { curve: Arc::new(curve), servers, has_deadlines: true, source })
        }
    }
}

fn hosted() -> Engine {
    let slots = HOSTED_SLOTS;
    Engine {
        curve: Arc::new(Curve::from_tables(vec![HOSTED_PACE; slots], vec![HOSTED_TTFT; slots], vec![0.0; slots])),
        servers: 1,
        has_deadlines: true,
        source: format!("hosted, assumed: {HOSTED_TTFT} s to the first token, {HOSTED_PACE} s for each other"),
    }
}

/// From a file of the user's own measurements. One of several engines would have to be guessed.
fn own(file: &Path, slots: u32) -> Result<(Curve, String), Failed> {
    let model = PerfModel::fit(&measured_rows(file)?);
    let mut keys = model.keys();
    let curve = match (keys.next(), keys.next()) {
        (Some(key), None) => perf::Curve::from_model(&model, key, slots).map(|curve| (key, curve)),
        _ => None,
    };
    let (key, curve) = curve.ok_or_else(|| {
        let (shown, engines) = (file.display(), model.keys().count());
        let help = "keep the rows of one model, system, gpus, backend and precision in the file";
        Failed::usage(format!("{shown}: it has the points of {engines} engines and not of one\n  help: {help}"))
    })?;
    Ok((Curve::measured(&curve), format!("measured on {key}")))
}

/// The measured engine that is nearest to this one, and what stood in for what.
fn nearest(backend: &Backend, gpu: &str) -> (Curve, String) {
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
