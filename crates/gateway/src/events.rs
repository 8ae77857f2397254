//! Every log line and every metric, each from a named struct or method, so that names and labels are in one place.
//!
//! Lines wait in a bounded buffer for a writing thread. A full disk or a slow reader costs lines, which are counted, and
//! never a request.

mod lines;
mod metrics;
mod series;

use std::{io::Write, net::IpAddr, path::Path, sync::Arc, time::Duration};

use outrigger_core::{
    Rng,
    cost::Cost,
    facts::{Facts, History},
    fleet::{BackendId, Fleet, Model},
    record::{Outcome, TokensSource},
    route::{Candidate, Decision},
    state::{View, scaling::Desired},
    units::Nanos,
};
use serde::{Deserialize, Serialize};

use self::lines::Lines;
pub use self::metrics::{Answered, Metrics, Outlook, engine_said, outlooks, state_word};
use crate::{
    live::Ticket,
    reload::Replaced,
    scale::{CallOutcome, Order},
};

/// Where lines go and numbers are kept.
#[derive(Clone, Debug)]
pub struct Events {
    requests: Option<Arc<Lines>>,
    decisions: Option<Arc<Lines>>,
    metrics: Arc<Metrics>,
}

/// Writers for the logs; absent ones are not kept.
#[derive(Default)]
pub struct Outputs {
    pub requests: Option<Box<dyn Write + Send>>,
    pub decisions: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("requests", &self.requests.is_some()).finish_non_exhaustive()
    }
}

/// The request log's line; `docs/request-log.md` describes each field.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a> {
    pub event: &'static str,
    pub v: u8,
    pub ts: String,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub client: IpAddr,
    pub key_id: Option<&'a str>,
    pub model: Option<&'a str>,
    pub stream: bool,
    pub status: u16,
    pub outcome: Outcome,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub tokens_source: TokensSource,
    pub ttft_ms: Option<f64>,
    pub queued_ms: f64,
    pub duration_ms: f64,
    pub tier: Option<u8>,
    pub reason: Option<&'a str>,
    pub attempts: Vec<AttemptLine<'a>>,
}

/// The line of a request that names no model. Not called a request, since no trace can be made of it.
#[derive(Debug, Serialize)]
pub struct RoutedLine<'a> {
    pub event: &'static str,
    pub v: u8,
    pub ts: String,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub client: IpAddr,
    pub key_id: Option<&'a str>,
    pub method: &'a str,
    pub path: &'a str,
    pub backend: &'a str,
    pub status: u16,
    pub outcome: Outcome,
    /// What went wrong, if something did.
    pub reason: Option<&'static str>,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub duration_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct AttemptLine<'a> {
    pub backend: &'a str,
    pub outcome: Outcome,
    pub reason: &'a str,
    pub ttft_ms: Option<f64>,
    pub duration_ms: f64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub cost_nano_usd: Cost,
}

/// The version of the decision log, in each of its lines.
pub const DECISION_LOG: u64 = 1;

/// The decision log's other line: what the numbers stand for in the decisions after it, so that these can be made again
/// under another fleet. Written before the first decision under a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetLine {
    pub event: String,
    pub v: u64,
    pub digest: String,
    pub models: Vec<ModelNames>,
    pub backends: Vec<String>,
    pub clouds: Vec<String>,
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNames {
    pub name: String,
    /// Backend and weight of each share of each tier, as the fleet file has them.
    pub tiers: Vec<Vec<(BackendId, u32)>>,
}

impl FleetLine {
    pub fn new(fleet: &Fleet) -> Self {
        let names = |model: &Model| ModelNames {
            name: model.name.clone(),
            tiers: model.tiers.iter().map(|t| t.split.iter().map(|s| (s.backend, s.weight)).collect()).collect(),
        };
        Self {
            event: "fleet".to_owned(),
            v: DECISION_LOG,
            digest: fleet.digest.clone(),
            models: fleet.models.iter().map(names).collect(),
            backends: fleet.backends.iter().map(|b| b.name.clone()).collect(),
            clouds: fleet.clouds.iter().map(|c| c.name.clone()).collect(),
            keys: fleet.keys.iter().map(|k| k.name.clone()).collect(),
        }
    }
}

/// The decision log's line: with the fleet of this digest it can be decided again, bit for bit.
#[derive(Debug, Serialize)]
pub struct DecisionLine<'a> {
    pub event: &'static str,
    pub v: u64,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub now: Nanos,
    pub facts: &'a Facts,
    pub history: &'a History,
    pub rng: &'a Rng,
    pub view: &'a View,
    pub decision: &'a Decision,
    pub candidates: &'a [Candidate],
}

impl<'a> DecisionLine<'a> {
    pub fn new(
        ticket: &'a Ticket,
        now: Nanos,
        rng: &'a Rng,
        view: &'a View,
        decision: &'a Decision,
        candidates: &'a [Candidate],
    ) -> Self {
        Self {
            event: "decision",
            v: DECISION_LOG,
            request_id: &ticket.request_id,
            fleet: &ticket.fleet.digest,
            now,
            facts: &ticket.facts,
            history: &ticket.history,
            rng,
            view,
            decision,
            candidates,
        }
    }
}

impl Events {
    pub fn start(outputs: Outputs) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let lines = |out: Option<Box<dyn Write + Send>>, log: &str| {
            let lost = metrics.lost(log);
            out.map(|out| Lines::start(out, lost).map(Arc::new)).transpose()
        };
        let requests = lines(outputs.requests, "request")?;
        let decisions = lines(outputs.decisions, "decision")?;
        Ok(Self { requests, decisions, metrics })
    }

    /// Nothing waits for a writer any more.
    pub fn all_written(&self) -> bool {
        [&self.requests, &self.decisions].into_iter().flatten().all(|lines| lines.all_written())
    }

    pub fn logs_decisions(&self) -> bool {
        self.decisions.is_some()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn request(&self, line: &RequestLine<'_>) {
        if let Some(lines) = &self.requests {
            lines.write(line);
        }
    }

    pub fn routed(&self, line: &RoutedLine<'_>) {
        if let Some(lines) = &self.requests {
            lines.write(line);
        }
    }

    /// One call to whoever scales a pool; `pause` is the time to the next try.
    pub fn scaled(&self, order: &Order, outcome: &CallOutcome, pause: Option<Duration>) {
        let Order { pool, gpus, replicas, reason, .. } = order;
        let what = match outcome {
            CallOutcome::Ok => "ok".to_owned(),
            CallOutcome::DryRun => "dry run, nothing was done".to_owned(),
            CallOutcome::Failed(why) => format!("failed: {why}"),
            CallOutcome::Timeout => "failed: it took too long and was ended".to_owned(),
        };
        let next = pause.map_or(String::new(), |pause| format!("; again in {} s", pause.as_secs()));
        eprintln!("scale {pool} to {gpus} GPUs ({replicas} replicas, {}): {what}{next}", reason.as_str());
        self.metrics.scale_called(pool, outcome.as_str());
    }

    /// More GPUs are desired than may be paid for.
    pub fn scale_held(&self, pool: &str, desired: &Desired, most: u32) {
        let (gpus, reason) = (desired.gpus, desired.reason.as_str());
        eprintln!("scale {pool}: {gpus} GPUs are wanted ({reason}), and max_usd_per_hour allows {most}");
        self.metrics.scale_called(pool, "held");
    }

    /// The fleet's files changed, and it is in force as they say now.
    pub fn fleet_replaced(&self, replaced: &Replaced) {
        eprintln!("the fleet is now {} (was {})", replaced.fleet.digest, replaced.before);
        for setting in &replaced.needs_restart {
            eprintln!("warning: {setting} changed, and is only read at the start; restart to obey it");
        }
    }

    /// The fleet's files changed, and what they hold cannot be served.
    pub fn fleet_kept(&self, digest: &str, why: &str) {
        eprintln!("warning: the fleet in force is still {digest}: {why}");
    }

    /// Clients are served with another certificate from now on.
    pub fn certificate_renewed(&self, chain: &Path) {
        eprintln!("certificate {}: renewed", chain.display());
        self.metrics.certificate_read("ok");
    }

    /// The files of the certificate changed, and what they hold cannot be served with.
    pub fn certificate_kept(&self, why: &str) {
        eprintln!("warning: clients are still served with the certificate of before: {why}");
        self.metrics.certificate_read("refused");
    }

    /// A backend does not take its new key, and still takes the one before.
    pub fn key_refused(&self, backend: &str) {
        eprintln!(
            "warning: backend {backend} refuses its new api_key and is asked with the one before; correct the key before that one ends"
        );
        self.metrics.key_refused(backend);
    }

    /// No TLS connection to a backend.
    pub fn backend_tls_failed(&self, backend: &str, why: &str) {
        eprintln!("warning: no TLS connection to backend {backend}: {why}");
    }

    /// `false` when the line is lost, so that it has to be written again.
    pub fn fleet(&self, line: &FleetLine) -> bool {
        self.decisions.as_ref().is_none_or(|lines| lines.write(line))
    }

    pub fn decision(&self, line: &DecisionLine<'_>) {
        if let Some(lines) = &self.decisions {
            lines.write(line);
        }
    }
}
