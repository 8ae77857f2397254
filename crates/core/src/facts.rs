//! What a decision may know about one request: fixed [`Facts`], and the [`History`] of its attempts so far.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    fleet::{Api, BackendId, CloudId, Fleet, Key, KeyId, ModelId, Priority},
    record::Fault,
    units::{Bytes, Nanos, Tokens},
};

/// Most attempts that one request may make, whatever the budget says (SRE book, chapter 21: at most three tries).
pub const MAX_ATTEMPTS: usize = 4;

/// Fixed when the request has been read; the same in every decision about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub model: ModelId,
    pub key: Option<KeyId>,
    /// What the backend has to have.
    #[serde(default)]
    pub api: Api,
    pub stream: bool,
    pub substitute_allowed: bool,
    pub clouds_allowed: CloudSet,
    pub priority: Priority,
    /// Of the prompt, estimated from its bytes.
    pub prompt_tokens: Tokens,
    /// The client's own bound on the answer.
    pub max_tokens: Option<Tokens>,
    pub body_bytes: Bytes,
    /// Requests with the same value prefer the same backend; absent on unkeyed requests.
    pub affinity: Option<u64>,
    pub arrived: Nanos,
    /// How long the request may wait for headroom before it is turned away.
    pub patience: Duration,
}

impl Facts {
    /// Facts of an anonymous request, for callers that then fill in what they know.
    pub fn anonymous(model: ModelId, arrived: Nanos) -> Self {
        Self {
            model,
            key: None,
            api: Api::Chat,
            stream: false,
            substitute_allowed: true,
            clouds_allowed: CloudSet::ALL,
            priority: Priority::Normal,
            prompt_tokens: Tokens(0),
            max_tokens: None,
            body_bytes: Bytes(0),
            affinity: None,
            arrived,
            patience: Duration::from_secs(10),
        }
    }

    /// The same with the rules of a key applied.
    #[must_use]
    pub fn with_key(mut self, id: KeyId, key: &Key) -> Self {
        self.key = Some(id);
        self.substitute_allowed = key.substitute;
        self.priority = key.priority;
        if let Some(clouds) = &key.allowed_clouds {
            self.clouds_allowed = clouds.iter().copied().collect();
        }
        self
    }
}

/// The affinity key of a session's or user's name: FNV-1a, the same for every replica and every release.
pub fn session_key(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where the things that facts and history name stand in another fleet, after a reload.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    pub from: &'a Fleet,
    pub to: &'a Fleet,
}

impl Moved<'_> {
    pub fn backend(&self, id: BackendId) -> Option<BackendId> {
        let identity = self.from.backend(id).identity();
        self.to.backends.iter().position(|b| b.identity() == identity).map(|i| BackendId(i as u16))
    }

    pub fn model(&self, id: ModelId) -> Option<ModelId> {
        self.to.model_by_name(&self.from.model(id).name)
    }

    pub fn cloud(&self, id: CloudId) -> Option<CloudId> {
        let name = &self.from.cloud(id).name;
        self.to.clouds.iter().position(|c| c.name == *name).map(|i| CloudId(i as u16))
    }

    pub fn key(&self, id: KeyId) -> Option<KeyId> {
        let name = &self.from.keys[id.index()].name;
        self.to.keys.iter().position(|k| k.name == *name).map(|i| KeyId(i as u16))
    }

    /// The same facts in the new fleet, under the key's new rules; `None` when the model is gone. The priority stays
    /// what it was when the request came: it has its place in line by it.
    pub fn facts(&self, facts: &Facts) -> Option<Facts> {
        let moved = Facts { model: self.model(facts.model)?, key: None, ..*facts };
        let key = facts.key.and_then(|k| self.key(k));
        let moved = key.map_or(moved, |id| moved.with_key(id, &self.to.keys[id.index()]));
        Some(Facts { priority: facts.priority, ..moved })
    }

    /// The same history in the new fleet; attempts on backends that are gone still count as attempts.
    pub fn history(&self, history: &History) -> History {
        let backend = |b: &Option<BackendId>| b.and_then(|b| self.backend(b));
        let mut moved = *history;
        moved.tried.iter_mut().for_each(|b| *b = backend(b));
        moved.server_errors.iter_mut().for_each(|b| *b = backend(b));
        moved
    }
}

/// A set of clouds; a fleet has at most 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudSet([u64; 2]);

impl CloudSet {
    pub const ALL: Self = Self([u64::MAX; 2]);

    pub fn contains(self, cloud: CloudId) -> bool {
        let i = cloud.index();
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

impl FromIterator<CloudId> for CloudSet {
    fn from_iter<I: IntoIterator<Item = CloudId>>(clouds: I) -> Self {
        let mut words = [0; 2];
        for cloud in clouds {
            words[cloud.index() / 64] |= 1 << (cloud.index() % 64);
        }
        Self(words)
    }
}

/// What has happened to one request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    tried: [Option<BackendId>; MAX_ATTEMPTS],
    attempts: u8,
    /// The last attempt's fault, which decides whether the next one draws on the retry budget.
    pub last_fault: Option<Fault>,
    free_failover_used: bool,
    /// Backends that answered this request with a 500.
    server_errors: [Option<BackendId>; 2],
    /// Counted among the model's waiting requests by the last decision.
    pub waiting: bool,
    /// How long it waits at most, while it does.
    #[serde(default)]
    pub until: Nanos,
    /// It has to leave the line for one of higher priority.
    #[serde(default)]
    pub displaced: bool,
}

impl History {
    pub fn attempts(&self) -> usize {
        usize::from(self.attempts)
    }

    /// Notes that the last decision was to wait.
    pub fn waits(&mut self, until: Nanos) {
        (self.waiting, self.until) = (true, until);
    }

    pub fn tried(&self, backend: BackendId) -> bool {
        self.tried.contains(&Some(backend))
    }

    /// Two distinct backends that both answered with a 500.
    pub fn two_server_errors(&self) -> Option<[BackendId; 2]> {
        match self.server_errors {
            [Some(a), Some(b)] => Some([a, b]),
            _ => None,
        }
    }

    /// Notes that an attempt on `backend` ended in `fault`, before any content reached the client.
    pub fn failed(&mut self, backend: BackendId, fault: Fault) {
        self.free_failover_used |= self.next_is_free();
        let number = self.attempts();
        if let Some(slot) = self.tried.get_mut(number) {
            *slot = Some(backend);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.last_fault = Some(fault);
        if fault.is_server_error()
            && let Some(slot) = self.server_errors.iter_mut().find(|s| s.is_none())
        {
            *slot = Some(backend);
        }
    }

    /// Whether the next attempt draws no budget: the last connection died, and it is the first time.
    pub fn next_is_free(&self) -> bool {
        !self.free_failover_used && self.last_fault.is_some_and(Fault::is_dead_connection)
    }

    /// The backends of the fleet in the order they were tried.
    pub fn tried_names<'a>(&'a self, fleet: &'a Fleet) -> impl Iterator<Item = &'a str> {
        self.tried.iter().flatten().map(|b| fleet.backend(*b).name.as_str())
    }
}
