//! The fleets that a log speaks of: the one that was given, and of the others as much as their `fleet` lines say.
//!
//! A recorded fleet is rebuilt just far enough that [`Moved`](outrigger_core::facts::Moved) finds what stands where in
//! the given one. There a backend with another URL is another backend; here the name decides, because the question is
//! where requests would have gone, and nobody is asked anything at the URL.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_core::fleet::{
    Affinity, Backend, Cloud, Engine, Fleet, Key, Mode, Model, Priority, QueueLimits, Reveal, Share, Slo, Tier,
    Timeouts, WeighBy,
};
use outrigger_gateway::events::{FleetLine, ModelNames};

use super::Fault;

pub(super) struct Fleets {
    given: Arc<Fleet>,
    recorded: BTreeMap<String, Arc<Fleet>>,
}

impl Fleets {
    pub(super) fn new(given: Arc<Fleet>) -> Self {
        Self { given, recorded: BTreeMap::new() }
    }

    pub(super) fn given(&self) -> &Arc<Fleet> {
        &self.given
    }

    pub(super) fn announced(&mut self, line: &FleetLine) {
        if line.digest != self.given.digest && !self.recorded.contains_key(&line.digest) {
            self.recorded.insert(line.digest.clone(), Arc::new(rebuilt(line, &self.given)));
        }
    }

    pub(super) fn recorded(&self, digest: &str) -> Result<&Arc<Fleet>, Fault> {
        self.recorded.get(digest).ok_or_else(|| {
            Fault::new(
                format!("it was made under fleet {digest}, and no `fleet` line before it says what that was"),
                "give the log from its beginning, or the fleet file that it was recorded under",
            )
        })
    }
}

fn rebuilt(line: &FleetLine, given: &Fleet) -> Fleet {
    Fleet {
        digest: line.digest.clone(),
        gateway: given.gateway.clone(),
        clouds: line.clouds.iter().map(|name| cloud(name)).collect(),
        pools: Vec::new(),
        backends: line.backends.iter().map(|name| backend(name, given)).collect(),
        models: line.models.iter().map(model).collect(),
        keys: line.keys.iter().map(|name| key(name)).collect(),
        routes: Vec::new(),
    }
}

fn cloud(name: &str) -> Cloud {
    Cloud { name: name.to_owned(), region: None, api_key: None, spend_limit: None, egress_usd_per_gb: None }
}

/// The given fleet's backend of that name, or one that is nowhere in it.
fn backend(name: &str, given: &Fleet) -> Backend {
    let known = given.backend_by_name(name).map(|id| given.backend(id).clone());
    known.unwrap_or_else(|| Backend::new(name, Engine::Openai, "", ""))
}

fn model(names: &ModelNames) -> Model {
    let tier = |split: &Vec<_>| Tier {
        split: split.iter().map(|(backend, weight)| Share { backend: *backend, weight: *weight }).collect(),
        enter_when: None,
        substitute: false,
    };
    Model {
        name: names.name.clone(),
        aliases: Vec::new(),
        mode: Mode::default(),
        slo: Slo::default(),
        tiers: names.tiers.iter().map(tier).collect(),
        timeouts: Timeouts::default(),
        queue: QueueLimits::default(),
        affinity: Affinity::default(),
        weigh_by: WeighBy::default(),
    }
}

fn key(name: &str) -> Key {
    Key {
        name: name.to_owned(),
        sha256: Vec::new(),
        models: None,
        routes: None,
        priority: Priority::default(),
        substitute: true,
        allowed_clouds: None,
        max_in_flight: None,
        reveal: Reveal::default(),
    }
}
