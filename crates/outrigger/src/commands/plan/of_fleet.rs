//! `outrigger plan --fleet`: a scenario made of what a team has already, its fleet file and the requests that it served.
//!
//! The result is the text of a scenario, which is then read like any other; `--save-scenario` keeps it. Nobody writes
//! three prices and forty speeds by hand to ask a first question, and whoever wants to ask a second one edits the text.
//! What a fleet file does not say (people, migration, weights, other costs) is left out, and the text says so.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use outrigger_config::ScenarioOutside as _;
use outrigger_core::{
    fleet::{Backend, CloudId, Fleet, Model, Pool, PoolPrice},
    units::NanoUsd,
};
use outrigger_plan::economics::{Book, Level};

use super::{Failed, outside::Files};
use crate::{
    commands::{colour_on_stderr, simulate::engines},
    config,
};

/// Bytes of a token of a prompt as text, and of a token that is streamed as an event.
const PROMPT_BYTES: f64 = 4.0;
const STREAMED_BYTES: f64 = 250.0;
/// Seconds over which rates of the trace are taken.
const WINDOW_S: u64 = 600;

/// A scenario in YAML, and what was taken to be so.
pub(super) struct Derived {
    pub(super) yaml: String,
    pub(super) notes: Vec<String>,
}

pub(super) fn scenario(path: &Path, trace: &Path, model: Option<&str>, book: &Book) -> Result<Derived, Failed> {
    let loaded = config::load(path).map_err(|error| Failed::of_config(path, &error))?;
    eprint!("{}", loaded.warnings.render(colour_on_stderr()));
    let fleet = &loaded.fleet;
    let model = pick(fleet, model)?;
    let mut made = Made { fleet, model, book, notes: Vec::new() };
    let trace = std::path::absolute(trace).map_err(|error| Failed::unreadable(trace, &error))?;
    let yaml = made.text(path, &trace)?;
    Ok(Derived { yaml, notes: made.notes })
}

fn pick<'f>(fleet: &'f Fleet, name: Option<&str>) -> Result<&'f Model, Failed> {
    let known = || fleet.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, &fleet.models[..]) {
        (Some(name), _) => fleet.model_by_name(name).map(|id| fleet.model(id)).ok_or_else(|| {
            Failed::usage(format!("the fleet has no model {name}\n  help: give --model one of: {}", known()))
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failed::usage(format!(
            "the fleet has several models, and a plan is of one\n  help: give --model one of: {}",
            known()
        ))),
    }
}

struct Made<'f> {
    fleet: &'f Fleet,
    model: &'f Model,
    book: &'f Book,
    notes: Vec<String>,
}

/// What is known of GPUs in one cloud.
#[derive(Default)]
struct Rented {
    gpu: String,
    on_demand: Option<NanoUsd>,
    reserved: Option<NanoUsd>,
    step: Option<u32>,
    cold_start_s: Option<u64>,
}

impl<'f> Made<'f> {
    fn text(&mut self, path: &Path, trace: &Path) -> Result<String, Failed> {
        let shape = Files.trace(trace, WINDOW_S);
        let shape = shape.map_err(|why| {
            Failed::usage(format!("{}: {why}\n  help: give a trace that `outrigger simulate` reads", trace.display()))
        })?;
        let rented = self.rented()?;
        let mut out = format!(
            "# Made of {} and {}.\n# Not known from them, and so not in it: people, migration, weights, other costs and the invoice.\nversion: 1\nname: {}\n",
            path.display(),
            trace.display(),
            text(&format!("{} as it is served today", self.model.name)),
        );
        out += &self.home()?;
        let _ =
            writeln!(out, "demand:\n  trace: {{ file: {}, window: {WINDOW_S}s }}", text(&trace.display().to_string()));
        out += &self.profiles(shape.prompt_milli)?;
        out += &self.slo()?;
        out += &self.clouds(&rented);
        out += &self.hosted();
        out += &self.today();
        let of = |level: &Level| level.micro_rps as f64 / 1e6 * level.seconds as f64;
        let (requests, seconds): (f64, u64) =
            (shape.levels.iter().map(of).sum(), shape.levels.iter().map(|level| level.seconds).sum());
        let month = requests / seconds.max(1) as f64 * 730.0 * 3_600.0;
        let gb = |milli: u64, bytes: f64| month * milli as f64 / 1e3 * bytes / 1e9;
        let (prompts, answers) = (gb(shape.prompt_milli, PROMPT_BYTES), gb(shape.output_milli, STREAMED_BYTES));
        let _ = writeln!(
            out,
            "# Of the requests' tokens: {PROMPT_BYTES} bytes for one of a prompt, {STREAMED_BYTES} for one that is streamed.\negress:\n  \
             - {{ name: prompts, from: home, to: gpus, gb_per_month: {prompts:.1} }}\n  \
             - {{ name: answers, from: gpus, to: home, gb_per_month: {answers:.1} }}\n  \
             - {{ name: to users, from: home, to: internet, gb_per_month: {answers:.1} }}"
        );
        Ok(out)
    }

    /// The model's backends, each once, in the order of its tiers; not those where another model answers.
    fn backends(&self) -> Vec<&'f Backend> {
        let mut found: Vec<&Backend> = Vec::new();
        for share in self.model.tiers.iter().filter(|tier| !tier.substitute).flat_map(|tier| &tier.split) {
            let backend = self.fleet.backend(share.backend);
            if !found.iter().any(|known| known.name == backend.name) {
                found.push(backend);
            }
        }
        found
    }

    fn pool_of(&self, backend: &Backend) -> Option<&'f Pool> {
        backend.pool.map(|pool| &self.fleet.pools[pool.index()])
    }

    fn cloud_name(&self, cloud: CloudId) -> &'f str {
        &self.fleet.cloud(cloud).name
    }

    fn home(&self) -> Result<String, Failed> {
        let gateway = &self.fleet.gateway;
        let Some(cloud) = &gateway.cloud else {
            let help = "write gateway.cloud, the provider where gateway and applications stand";
            return Err(Failed::usage(format!("the fleet does not say where home is\n  help: {help}")));
        };
        let mut out = format!("home:\n  cloud: {}\n", text(cloud));
        if let Some(region) = &gateway.region {
            let _ = writeln!(out, "  region: {}", text(region));
        }
        if let Some(price) = gateway.egress_usd_per_gb {
            let _ = writeln!(out, "  egress_usd_per_gb: {}", price.as_usd());
        }
        Ok(out)
    }

    /// The engines as the simulator takes them, at a few numbers of requests at once.
    fn profiles(&mut self, prompt_milli: u64) -> Result<String, Failed> {
        let mut out = format!("model:\n  name: {}\n  profiles:\n", text(&self.model.name));
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for backend in self.backends() {
            let Some(pool) = self.pool_of(backend) else { continue };
            if let Some(first) = known.get(&pool.gpu) {
                self.notes.push(format!("{}: taken to be as fast on {} as {first}", backend.name, pool.gpu));
                continue;
            }
            let engine = engines::engine(self.fleet, backend, &mut self.notes)?;
            let prompt = prompt_milli / 1_000;
            // A constant rate has the slots of all replicas together.
            let replicas = if engine.servers == 1 { backend.replicas.max(1) as usize } else { 1 };
            let limit = backend.max_in_flight.map_or(usize::MAX, |most| (most / backend.replicas.max(1)) as usize);
            let slots = (engine.curve.slots() / replicas).min(limit).clamp(1, 4_096);
            let _ = writeln!(out, "    # {}", engine.source.replace('\n', " "));
            let _ = writeln!(
                out,
                "    - gpu: {}\n      gpus: {}\n      points:",
                text(&pool.gpu),
                backend.gpus_per_replica
            );
            let powers = (0..12).map(|power| 1_usize << power).take_while(|at| *at < slots);
            for at in powers.chain([slots]) {
                let (first, pace) = engine.curve.speeds(at, prompt);
                let (ttft, tpot) = ((first * 1e3).max(0.01), pace * 1e3);
                let _ = writeln!(out, "        - {{ concurrency: {at}, ttft_ms: {ttft:.2}, tpot_ms: {tpot:.3} }}");
            }
            known.insert(pool.gpu.clone(), &backend.name);
        }
        if known.is_empty() {
            let help = "a plan compares GPUs: give a model with a backend in a pool";
            return Err(Failed::usage(format!("no backend of {} stands in a pool\n  help: {help}", self.model.name)));
        }
        Ok(out)
    }

    fn slo(&self) -> Result<String, Failed> {
        let slo = self.model.slo;
        let (Some(ttft), Some(pace)) = (slo.ttft_p95, slo.time_per_output_token_p95) else {
            let help = format!("write models.{}.slo with ttft_p95 and time_per_output_token_p95", self.model.name);
            return Err(Failed::usage(format!("{} has no whole objective\n  help: {help}", self.model.name)));
        };
        let (ttft, pace) = (ttft.as_secs_f64() * 1e3, pace.as_secs_f64() * 1e3);
        Ok(format!("slo: {{ ttft_p95: {ttft}ms, time_per_output_token_p95: {pace}ms }}\n"))
    }

    /// By cloud; of several pools in one, the cheapest price of each kind.
    fn rented(&mut self) -> Result<BTreeMap<String, Rented>, Failed> {
        let mut found: BTreeMap<String, Rented> = BTreeMap::new();
        for backend in self.backends() {
            let Some(pool) = self.pool_of(backend) else { continue };
            let cloud = self.cloud_name(pool.cloud);
            let rented = found.entry(cloud.to_owned()).or_default();
            if !rented.gpu.is_empty() && rented.gpu != pool.gpu {
                let help =
                    "a plan takes one kind of GPU in each cloud: take one of the backends out of a copy of the file";
                return Err(Failed::usage(format!("{cloud} has {} and {}\n  help: {help}", rented.gpu, pool.gpu)));
            }
            rented.gpu.clone_from(&pool.gpu);
            let least = |known: Option<NanoUsd>, price: NanoUsd| Some(known.map_or(price, |known| known.min(price)));
            match &pool.price {
                PoolPrice::Reserved { usd_per_gpu_hour, .. } => {
                    rented.reserved = least(rented.reserved, *usd_per_gpu_hour);
                }
                PoolPrice::OnDemand { usd_per_gpu_hour, cold_start, .. } => {
                    rented.on_demand = least(rented.on_demand, *usd_per_gpu_hour);
                    rented.step = Some(pool.gpus.step.max(1));
                    rented.cold_start_s = Some(cold_start.as_secs());
                }
            }
        }
        Ok(found)
    }

    fn clouds(&mut self, rented: &BTreeMap<String, Rented>) -> String {
        let mut out = String::from("clouds:\n");
        for (name, known) in rented {
            let cloud = self.fleet.clouds.iter().find(|cloud| cloud.name == *name);
            let mut keys = vec![format!("gpu: {}", text(&known.gpu))];
            let region = cloud.and_then(|cloud| cloud.region.as_deref());
            let is_in_book = |region| self.book.offer(name, &known.gpu, region, 1).is_some();
            match region {
                Some(region) if known.on_demand.is_some() || is_in_book(Some(region)) => {
                    keys.push(format!("region: {}", text(region)));
                }
                Some(region) => {
                    self.notes.push(format!("{name}: the book has no price in {region}; its cheapest region is taken"));
                }
                None => {}
            }
            keys.extend(known.on_demand.map(|price| format!("usd_per_gpu_hour: {}", price.as_usd())));
            keys.extend(known.step.map(|step| format!("instance_gpus: {step}")));
            keys.extend(known.reserved.map(|price| format!("reserved_usd_per_gpu_hour: {}", price.as_usd())));
            keys.extend(known.cold_start_s.map(|seconds| format!("cold_start: {seconds}s")));
            let egress = cloud.and_then(|cloud| cloud.egress_usd_per_gb);
            keys.extend(egress.map(|price| format!("egress_usd_per_gb: {}", price.as_usd())));
            let _ = writeln!(out, "  {}: {{ {} }}", text(name), keys.join(", "));
        }
        // Home without GPUs of ours: what all of it would cost there is what everything is compared with.
        let home = self.fleet.gateway.cloud.as_deref().unwrap_or_default();
        let gpu = rented.values().next().map_or("", |first| &first.gpu);
        let region = self.fleet.gateway.region.as_deref();
        if !rented.contains_key(home) {
            let there = [region, None].into_iter().find(|region| self.book.offer(home, gpu, *region, 1).is_some());
            match there {
                Some(Some(region)) => {
                    let _ = writeln!(out, "  {}: {{ gpu: {}, region: {} }}", text(home), text(gpu), text(region));
                }
                Some(None) => {
                    let _ = writeln!(out, "  {}: {{ gpu: {} }}", text(home), text(gpu));
                }
                None => self
                    .notes
                    .push(format!("{home}: the book has no {gpu} there, so that staying at home is not compared")),
            }
        }
        out
    }

    fn hosted(&self) -> String {
        let mut out = String::new();
        let priced = self.backends().into_iter().filter_map(|backend| Some((backend, backend.token_price?)));
        for (backend, price) in priced.filter(|(backend, _)| backend.pool.is_none()) {
            let (input, output) = (price.input.as_usd(), price.output.as_usd());
            let _ = writeln!(
                out,
                "  {}: {{ usd_per_million_tokens: {{ input: {input}, output: {output} }} }}",
                text(&backend.name)
            );
        }
        if out.is_empty() { out } else { format!("hosted:\n{out}") }
    }

    /// Pools as they are paid: a reservation with an end is a commitment.
    fn today(&mut self) -> String {
        let (mut pools, mut commitments) = (String::new(), String::new());
        for (i, pool) in self.fleet.pools.iter().enumerate() {
            let is_here = |backend: &&Backend| backend.pool.is_some_and(|id| id.index() == i);
            let own: Vec<&Backend> = self.backends().into_iter().filter(is_here).collect();
            if own.is_empty() {
                continue;
            }
            let used =
                |backends: &[&Backend]| -> u32 { backends.iter().map(|b| b.replicas * b.gpus_per_replica).sum() };
            let all: Vec<&Backend> = self.fleet.backends.iter().filter(is_here).collect();
            let (name, cloud) = (&pool.name, text(self.cloud_name(pool.cloud)));
            let gpus = if all.len() > own.len() {
                let (own, all) = (used(&own), used(&all));
                self.notes.push(format!("{name}: other models run there too; {own} of its {all} GPUs are this one's"));
                own
            } else {
                if pool.gpus.min < pool.gpus.max {
                    let (min, max) = (pool.gpus.min, pool.gpus.max);
                    self.notes.push(format!(
                        "{name}: of {min} to {max} GPUs, {max} are taken to be paid all month; write what was billed under today.pools"
                    ));
                }
                pool.gpus.max
            };
            if gpus == 0 {
                continue;
            }
            let price = pool.price.usd_per_gpu_hour().as_usd();
            let line = format!("{{ cloud: {cloud}, gpus: {gpus}, usd_per_gpu_hour: {price}");
            match &pool.price {
                PoolPrice::Reserved { until: Some(until), .. } => {
                    let _ = writeln!(commitments, "  - {line}, until: {until} }}");
                }
                _ => {
                    let _ = writeln!(pools, "    - {line} }}");
                }
            }
        }
        let pools =
            if pools.is_empty() { "today: { pools: [] }\n".to_owned() } else { format!("today:\n  pools:\n{pools}") };
        let commitments = if commitments.is_empty() { commitments } else { format!("commitments:\n{commitments}") };
        pools + &commitments
    }
}

/// As a YAML scalar that means nothing else. What is not plainly a word is quoted: JSON's strings are YAML's.
fn text(value: &str) -> String {
    const OTHER: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !OTHER.iter().any(|other| value.eq_ignore_ascii_case(other));
    if is_word { value.to_owned() } else { serde_json::to_string(value).unwrap_or_default() }
}

/// Where `--save-scenario` writes.
pub(super) fn save(path: &PathBuf, derived: &Derived) -> Result<(), Failed> {
    let help = "give --save-scenario a file in a folder that is there";
    let wrong = |error| Failed::environment(format!("cannot write {}: {error}\n  help: {help}", path.display()));
    std::fs::write(path, &derived.yaml).map_err(wrong)
}
