//! `status`, `drain`, `undrain`, `weight`, `reload`: a running gateway, seen and changed through its admin listener.

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    Exit,
    client::{DEFAULT_ADMIN, block_on, call, part},
    name_column, values, write_out,
};

/// Which gateway, and how to answer.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The gateway's admin listener.
    #[arg(long, default_value = DEFAULT_ADMIN, value_parser = values::admin_url)]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What every temporary change has.
#[derive(Debug, clap::Args)]
struct Overlay {
    /// How long, such as 30m or 2h.
    #[arg(long = "for", default_value = "2h", value_parser = values::time)]
    time: String,
    /// Why, for whoever looks next.
    #[arg(long, default_value = "")]
    why: String,
}

impl Overlay {
    /// The body of a request that makes the change.
    fn to_json(&self) -> Value {
        json!({ "for": self.time, "why": self.why, "owner": owner() })
    }
}

/// Show what the gateway sees and does.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    target: Target,
}

/// Take a backend out of use for new requests, for a while.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    /// Its name in the fleet file.
    backend: String,
    #[command(flatten)]
    overlay: Overlay,
    #[command(flatten)]
    target: Target,
}

/// Put a drained backend, or one that is ejected, back into use.
#[derive(Debug, clap::Args)]
pub(super) struct Undrain {
    /// Its name in the fleet file.
    backend: String,
    #[command(flatten)]
    target: Target,
}

/// Change the weights of a tier for a while.
#[derive(Debug, clap::Args)]
pub(super) struct Weight {
    /// Its name in the fleet file.
    model: String,
    /// Such as `coreweave=60 lambda=40`; a backend left out gets 0.
    #[arg(required = true, value_name = "BACKEND=WEIGHT")]
    weights: Vec<String>,
    /// Which tier, from 1.
    #[arg(long, default_value_t = 1, value_parser = values::whole_number)]
    tier: u64,
    #[command(flatten)]
    overlay: Overlay,
    #[command(flatten)]
    target: Target,
}

/// Read the fleet file again; a faulty one changes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    #[command(flatten)]
    target: Target,
}

pub(super) fn status(args: &Status) -> Exit {
    answer(&args.target, Method::GET, "/api/v1/state", None, table)
}

pub(super) fn drain(args: &Drain) -> Exit {
    let body = args.overlay.to_json();
    answer(&args.target, Method::POST, &format!("/api/v1/backends/{}/drain", part(&args.backend)), Some(&body), |v| {
        format!("{} gets no new requests {}\n", args.backend, until(v))
    })
}

pub(super) fn undrain(args: &Undrain) -> Exit {
    answer(&args.target, Method::POST, &format!("/api/v1/backends/{}/undrain", part(&args.backend)), None, |v| {
        match (&v["ended"], &v["forgiven"]) {
            (Value::Bool(true), _) => format!("{} is in use again\n", args.backend),
            (_, Value::Bool(true)) => format!("{} is in use again, its ejection is over\n", args.backend),
            _ => format!("{} was not drained\n", args.backend),
        }
    })
}

pub(super) fn weight(args: &Weight) -> Exit {
    let weights = match args.weights.iter().map(|pair| one_weight(pair)).collect::<Result<Map<_, _>>>() {
        Ok(weights) => weights,
        Err(e) => {
            eprintln!("error: {e}");
            return Exit::Usage;
        }
    };
    let mut body = args.overlay.to_json();
    body["tier"] = json!(args.tier);
    body["weights"] = Value::Object(weights);
    answer(&args.target, Method::PUT, &format!("/api/v1/models/{}/split", part(&args.model)), Some(&body), |v| {
        format!("tier {} of {} is split {} {}\n", args.tier, args.model, args.weights.join(" "), until(v))
    })
}

pub(super) fn reload(args: &Reload) -> Exit {
    answer(&args.target, Method::POST, "/api/v1/reload", None, |v| {
        let text = |key: &str| v[key].as_str().unwrap_or("?").to_owned();
        let mut said = if text("before") == text("fleet") {
            format!("the fleet is {} as before\n", text("fleet"))
        } else {
            format!("the fleet is now {} (was {})\n", text("fleet"), text("before"))
        };
        for overlay in v["dropped_overlays"].as_array().into_iter().flatten() {
            said.push_str(&format!("no longer in force, its target is gone: {overlay}\n"));
        }
        for setting in v["needs_restart"].as_array().into_iter().flatten() {
            said.push_str(&format!("changed, but only read at the start: {}\n", setting.as_str().unwrap_or("?")));
        }
        said
    })
}

fn one_weight(pair: &str) -> Result<(String, Value)> {
    let (backend, weight) =
        pair.split_once('=').with_context(|| format!("{pair:?} is not BACKEND=WEIGHT, such as coreweave=60"))?;
    match weight.parse::<u32>() {
        Ok(weight) => Ok((backend.to_owned(), json!(weight))),
        Err(_) => bail!("the weight in {pair:?} is not a whole number, such as 60"),
    }
}

/// Asks the gateway and prints what it said, as JSON or through `words`.
fn answer(target: &Target, method: Method, path: &str, body: Option<&Value>, words: impl Fn(&Value) -> String) -> Exit {
    let reply = match block_on(call(method, &target.admin, path, body)) {
        Ok(reply) => reply,
        Err(e) => {
            eprintln!("error: {e:#}");
            return Exit::Environment;
        }
    };
    match reply.json() {
        Ok(value) if target.json => write_out(&format!("{value}\n")),
        Ok(value) => write_out(&words(&value)),
        Err(e) => {
            eprintln!("error: {e:#}");
            if reply.status >= 500 { Exit::Environment } else { Exit::No }
        }
    }
}

fn owner() -> String {
    std::env::var("USER").unwrap_or_else(|_| "operator".to_owned())
}

fn until(v: &Value) -> String {
    let seconds = v["for_s"].as_u64().unwrap_or(0);
    let survives =
        if v["survives_restart"].as_bool() == Some(true) { "" } else { "; a restart ends it (no gateway.state_dir)" };
    format!("for {} on this replica{survives}", time(seconds))
}

fn time(seconds: u64) -> String {
    match seconds {
        s if s >= 3_600 && s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The state as a person reads it.
fn table(state: &Value) -> String {
    use std::fmt::Write as _;
    let mut out =
        format!("fleet {}{}\n\n", text(&state["fleet"]), if state["draining"] == true { ", draining" } else { "" });
    if let Some(why) = state["reload_refused"].as_str() {
        writeln!(out, "the fleet file was refused, and the fleet above stays in force:\n{}\n", why.trim_end()).ok();
    }
    let backends = || state["backends"].as_array().into_iter().flatten();
    let width = name_column(backends().filter_map(|b| b["backend"].as_str()));
    writeln!(
        out,
        "{:<width$} {:<12} {:<13} {:<24} {:>9} {:>9} {:>9}",
        "BACKEND", "CLOUD", "STATE", "WHY", "IN FLIGHT", "TTFT p50", "p99"
    )
    .ok();
    for b in backends() {
        let limit = b["max_in_flight"].as_u64().map_or(String::new(), |limit| format!("/{limit}"));
        writeln!(
            out,
            "{:<width$} {:<12} {:<13} {:<24} {:>9} {:>9} {:>9}",
            text(&b["backend"]),
            text(&b["cloud"]),
            text(&b["state"]),
            why(b),
            format!("{}{limit}", b["in_flight"]),
            milliseconds(&b["ttft_p50_ms"]),
            milliseconds(&b["ttft_p99_ms"]),
        )
        .ok();
    }
    for m in state["models"].as_array().into_iter().flatten() {
        writeln!(out, "\nmodel {}{}", text(&m["model"]), waiting(m)).ok();
        for t in m["tiers"].as_array().into_iter().flatten() {
            let shares: Vec<String> = (t["split"].as_array().into_iter().flatten())
                .map(|s| format!("{} {:.0} %", text(&s["backend"]), s["share"].as_f64().unwrap_or(0.0) * 100.0))
                .collect();
            let note = if t["substitute"] == true { "  (another model answers)" } else { "" };
            writeln!(out, "  tier {}: {}{note}", t["tier"], shares.join(", ")).ok();
        }
    }
    pools(state, &mut out);
    survival(state, &mut out);
    for c in state["clouds"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| !c["limit_usd_per_hour"].is_null() || !c["limit_usd_per_day"].is_null())
    {
        let limit = |v: &Value| v.as_f64().map_or("no limit".to_owned(), |usd| format!("limit ${usd}"));
        let spent = |v: &Value| v.as_f64().unwrap_or(0.0);
        writeln!(
            out,
            "\ncloud {}: ${:.4} in the last hour ({}), ${:.4} in the last day ({})",
            text(&c["cloud"]),
            spent(&c["spent_usd_last_hour"]),
            limit(&c["limit_usd_per_hour"]),
            spent(&c["spent_usd_last_day"]),
            limit(&c["limit_usd_per_day"]),
        )
        .ok();
    }
    overlays(state, &mut out);
    out
}

/// `flapping, 42s left`.
fn why(backend: &Value) -> String {
    let why = text(&backend["why"]);
    match backend["ends_in_s"].as_f64() {
        Some(left) => format!("{why}, {:.0}s left", left.ceil()),
        None => why.to_owned(),
    }
}

/// One line for each pool that follows the load.
fn pools(state: &Value, out: &mut String) {
    use std::fmt::Write as _;
    for (i, p) in state["pools"].as_array().into_iter().flatten().enumerate() {
        let gap = if i == 0 { "\n" } else { "" };
        let told = match p["dry_run"].as_bool() {
            None => ", nobody is told",
            Some(true) => ", dry run",
            Some(false) => "",
        };
        let (name, gpus, reason) = (text(&p["pool"]), &p["gpus"], text(&p["reason"]));
        let (desired, replicas) = (&p["desired_gpus"], &p["desired_replicas"]);
        let (min, max) = (&gpus["min"], &gpus["max"]);
        writeln!(
            out,
            "{gap}pool {name}: {desired} of {min} to {max} GPUs wanted ({replicas} replicas, {reason}{told})"
        )
        .ok();
    }
}

/// One line for each cloud, with the models that it serves.
fn survival(state: &Value, out: &mut String) {
    use std::fmt::Write as _;
    let all: Vec<&Value> = state["survival"].as_array().into_iter().flatten().collect();
    let mut lost: Vec<&str> = all.iter().map(|s| text(&s["lost_cloud"])).collect();
    lost.dedup();
    for (i, cloud) in lost.into_iter().enumerate() {
        let models: Vec<String> =
            all.iter().filter(|s| text(&s["lost_cloud"]) == cloud).map(|s| survival_of(s)).collect();
        let gap = if i == 0 { "\n" } else { "" };
        writeln!(out, "{gap}if {cloud} dies now: {}", models.join(", ")).ok();
    }
}

/// `llama-70b 62 % served (100 % with substitutes)`.
fn survival_of(s: &Value) -> String {
    // Rounded down: 99.6 % is not all.
    let percent = |key: &str| (s[key].as_f64().unwrap_or(0.0) * 100.0 + 1e-9).floor();
    let (share, with_substitutes) = (percent("share"), percent("share_with_substitutes"));
    let at_least = if s["is_lower_bound"] == true { "at least " } else { "" };
    let note = match () {
        () if s["load"].as_f64() == Some(0.0) => " (nothing in flight)".to_owned(),
        () if with_substitutes > share => format!(" ({with_substitutes} % with substitutes)"),
        () => String::new(),
    };
    format!("{} {at_least}{share} % served{note}", text(&s["model"]))
}

fn overlays(state: &Value, out: &mut String) {
    use std::fmt::Write as _;
    let now = state["now"].as_u64().unwrap_or(0);
    for o in state["overlays"].as_array().into_iter().flatten() {
        let left = o["until"].as_u64().unwrap_or(0).saturating_sub(now) / 1_000_000_000;
        let what = match o["kind"].as_str() {
            Some("drain") => format!("drain of {}", text(&o["backend"])),
            _ => format!("weights of {} tier {}", text(&o["model"]), o["tier"]),
        };
        let why = match o["why"].as_str() {
            None | Some("") => String::new(),
            Some(why) => format!(": {why}"),
        };
        writeln!(out, "\noverlay by {}, {} left, {what}{why}", text(&o["owner"]), time(left.max(1))).ok();
    }
    if state["overlays_survive_restart"] != true && state["overlays"].as_array().is_some_and(|o| !o.is_empty()) {
        writeln!(out, "overlays are in memory only: set gateway.state_dir to keep them over a restart").ok();
    }
}

fn waiting(model: &Value) -> String {
    match model["waiting"].as_u64() {
        None | Some(0) => String::new(),
        Some(n) => format!(" ({n} waiting for headroom)"),
    }
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or("-")
}

fn milliseconds(v: &Value) -> String {
    v.as_u64().map_or("-".to_owned(), |ms| format!("{ms} ms"))
}
