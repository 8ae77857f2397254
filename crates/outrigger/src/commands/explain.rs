//! `outrigger explain`: what would be chosen and why, by the very code that chooses; or what was, from a live gateway.

use std::{path::PathBuf, sync::Arc};

use http::Method;
use outrigger_core::{
    Rng,
    facts::{Facts, History, session_key},
    fleet::Fleet,
    route::{Candidate, Decision, Verdict},
    state::{Observed, State},
    units::{Nanos, Tokens},
};
use rand_core::SeedableRng as _;
use serde_json::{Value, json};

use super::{
    Exit,
    client::{DEFAULT_ADMIN, block_on, call, part},
    input::Failed,
    name_column, values, write_out,
};
use crate::config;

/// Say what would be chosen for a request, and why.
#[derive(Debug, clap::Args)]
#[command(override_usage = "outrigger explain --fleet <FLEET> --model <MODEL> [OPTIONS]\n       \
                            outrigger explain --id <ID> [--admin <ADMIN>] [--json]")]
pub(super) struct Args {
    /// The fleet file.
    #[arg(long, required_unless_present = "id", requires = "model")]
    fleet: Option<PathBuf>,
    /// The model as a client names it.
    #[arg(long)]
    model: Option<String>,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 1_000, value_parser = values::whole_number)]
    prompt_tokens: u64,
    /// The client's bound on the answer.
    #[arg(long, value_parser = values::whole_number)]
    max_tokens: Option<u64>,
    /// A session, as `x-session-id` would name it.
    #[arg(long)]
    session: Option<String>,
    /// Decide in the state of a running gateway: the JSON of `outrigger status --json`.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Explain a request that a live gateway has served, by its x-outrigger-request-id.
    #[arg(long, conflicts_with_all = ["fleet", "model", "state"])]
    id: Option<String>,
    /// The live gateway's admin listener.
    #[arg(long, default_value = DEFAULT_ADMIN, value_parser = values::admin_url)]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let result = match &args.id {
        Some(id) => live(args, id),
        None => ahead(args),
    };
    match result {
        Ok(exit) => exit,
        Err(failed) => {
            eprintln!("error: {}", failed.message.trim_end());
            failed.exit
        }
    }
}

fn live(args: &Args, id: &str) -> Result<Exit, Failed> {
    let reply = block_on(call(Method::GET, &args.admin, &format!("/api/v1/decisions/{}", part(id)), None))?;
    let value = reply.json().map_err(|e| Failed { exit: Exit::No, message: format!("{e:#}") })?;
    if args.json {
        return Ok(write_out(&format!("{value}\n")));
    }
    let decisions = value["decisions"].as_array().into_iter().flatten();
    Ok(write_out(&decisions.map(|d| format!("attempt {}: {}", d["attempt"], words(d))).collect::<String>()))
}

fn ahead(args: &Args) -> Result<Exit, Failed> {
    let path = args.fleet.as_deref().unwrap_or_else(|| unreachable!("clap requires it"));
    let loaded = config::load(path).map_err(|error| Failed::of_config(path, &error))?;
    let fleet = Arc::new(loaded.fleet);
    let name = args.model.as_deref().unwrap_or_default();
    let model = fleet.model_by_name(name).ok_or_else(|| {
        let names: Vec<&str> = fleet.models.iter().map(|m| m.name.as_str()).collect();
        Failed::usage(format!("{}: no model `{name}`\n  help: name one of: {}", path.display(), names.join(", ")))
    })?;
    let mut rng = Rng::seed_from_u64(0);
    let (mut state, now) = match &args.state {
        Some(file) => recorded(&fleet, file)?,
        None => (State::new(fleet.clone(), Nanos::ZERO, &mut rng), Nanos::ZERO),
    };
    let facts = Facts {
        prompt_tokens: Tokens(args.prompt_tokens),
        max_tokens: args.max_tokens.map(Tokens),
        affinity: args.session.as_ref().map(|s| session_key(s.as_bytes())),
        ..Facts::anonymous(model, now)
    };
    let mut candidates = Vec::new();
    let decision = state.decide(&facts, &History::default(), now, &mut rng, &mut candidates);
    let value = explanation(&fleet, &state, &facts, now, decision, &candidates);
    if args.json {
        return Ok(write_out(&format!("{value}\n")));
    }
    Ok(write_out(&words(&value)))
}

/// The state that a gateway reported, if it belongs to this fleet.
fn recorded(fleet: &Arc<Fleet>, file: &std::path::Path) -> Result<(State, Nanos), Failed> {
    let text = std::fs::read(file).map_err(|e| Failed::unreadable(file, &e))?;
    let wrong = |why: String| {
        Failed::usage(format!("{}: {why}\n  help: `outrigger status --json` writes what is needed", file.display()))
    };
    let value: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("it is not JSON: {e}")))?;
    if value["fleet"].as_str() != Some(&fleet.digest) {
        return Err(wrong(format!("it is of fleet {}, and the file is {}", value["fleet"], fleet.digest)));
    }
    let observed: Observed = serde_json::from_value(value["observed"].clone()).map_err(|e| wrong(e.to_string()))?;
    let now = Nanos(value["now"].as_u64().unwrap_or(0));
    let state = State::restore(fleet.clone(), observed).ok_or_else(|| wrong("it does not fit the fleet".to_owned()))?;
    Ok((state, now))
}

fn explanation(
    fleet: &Fleet,
    state: &State,
    facts: &Facts,
    now: Nanos,
    decision: Decision,
    candidates: &[Candidate],
) -> Value {
    let (chosen, reason) = match decision {
        Decision::Attempt(a) => (Some(fleet.backend(a.backend).name.as_str()), a.reason.as_str()),
        Decision::Queue { .. } => (None, "queue"),
        Decision::Reject(r) => (None, r.why.as_str()),
    };
    let candidates: Vec<Value> = (candidates.iter())
        .map(|c| {
            let backend = fleet.backend(c.backend);
            let ttft = state.backend(c.backend).ttft.p50().map(|usual| usual + state.wait_at(fleet, c.backend, now));
            json!({
                "backend": backend.name,
                "tier": c.tier,
                "eligible": c.verdict.is_eligible(),
                "reason": c.verdict.as_str(),
                "why": match c.verdict {
                    Verdict::Down { why } | Verdict::Suspect { why } => Some(why.as_str()),
                    _ => None,
                },
                "expected_ttft_ms": ttft.map(|d| d.as_millis() as u64),
                "cost_nano_usd": state.marginal_cost(fleet, facts, c.backend).0,
            })
        })
        .collect();
    json!({ "chosen": chosen, "reason": reason, "candidates": candidates })
}

fn words(v: &Value) -> String {
    use std::fmt::Write as _;
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let mut out = match v["chosen"].as_str() {
        Some(chosen) => format!("{chosen} ({})\n", text(&v["reason"])),
        None => format!("nothing ({})\n", text(&v["reason"])),
    };
    let candidates = || v["candidates"].as_array().into_iter().flatten();
    let width = name_column(candidates().filter_map(|c| c["backend"].as_str()));
    for c in candidates() {
        let why = c["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
        let cost = match c["cost_nano_usd"].as_i64() {
            Some(nano) if nano > 0 => format!("  ${:.6}", nano as f64 / 1e9),
            _ => String::new(),
        };
        writeln!(out, "  tier {}  {:<width$} {}{why}{cost}", c["tier"], text(&c["backend"]), text(&c["reason"])).ok();
    }
    out
}
