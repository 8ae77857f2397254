//! The metrics of one backend as it serves one model from one tier, found by their labels once and then kept: to find
//! them for every request would cost more than the whole of its routing.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use hashbrown::{Equivalent, HashMap};
use outrigger_core::{
    fleet::{BackendId, Fleet},
    record::Outcome,
};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::metrics::FloatCounter;

/// Who served, by the names in the fleet file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Served<'a> {
    pub(super) backend: &'a str,
    pub(super) cloud: &'a str,
    pub(super) region: &'a str,
    pub(super) model: &'a str,
    pub(super) tier: u8,
}

impl<'a> Served<'a> {
    pub(super) fn new(fleet: &'a Fleet, backend: BackendId, model: &'a str, tier: u8) -> Self {
        let cloud = fleet.cloud_of(backend);
        let region = cloud.region.as_deref().unwrap_or_default();
        Self { backend: &fleet.backend(backend).name, cloud: &cloud.name, region, model, tier }
    }
}

/// The same, kept.
#[derive(Debug)]
struct Key {
    backend: String,
    cloud: String,
    region: String,
    model: String,
    tier: u8,
}

impl Key {
    fn served(&self) -> Served<'_> {
        let Self { backend, cloud, region, model, tier } = self;
        Served { backend, cloud, region, model, tier: *tier }
    }
}

impl From<&Served<'_>> for Key {
    fn from(served: &Served<'_>) -> Self {
        let Served { backend, cloud, region, model, tier } = *served;
        Self { backend: backend.into(), cloud: cloud.into(), region: region.into(), model: model.into(), tier }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.served() == other.served()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.served().hash(state);
    }
}

impl Equivalent<Key> for Served<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.served()
    }
}

/// What was found so far for one [`Served`].
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) duration: OnceLock<Histogram>,
    pub(super) ttft: OnceLock<Histogram>,
    pub(super) per_token: OnceLock<Histogram>,
    /// By status and outcome.
    pub(super) requests: Few<(u16, Outcome), Counter>,
    /// By result and reason.
    pub(super) attempts: Few<(&'static str, &'static str), Counter>,
    /// By kind and source.
    pub(super) tokens: Few<(&'static str, &'static str), Counter>,
    /// By kind.
    pub(super) cost: Few<&'static str, FloatCounter>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct AllSeries(RwLock<HashMap<Key, Arc<Series>>>);

impl AllSeries {
    pub(super) fn of(&self, served: &Served<'_>) -> Arc<Series> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(served) {
            return known.clone();
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(Key::from(served)).or_default().clone()
    }
}

/// A handful of metrics by a label that takes few values.
#[derive(Debug)]
pub(super) struct Few<K, M>(RwLock<Vec<(K, M)>>);

impl<K, M> Default for Few<K, M> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Copy + PartialEq, M> Few<K, M> {
    /// Hands the metric of this label on, after `find` if it has not been found before.
    pub(super) fn with(&self, label: K, find: impl FnOnce() -> M, then: impl FnOnce(&M)) {
        if let Some((_, known)) =
            self.0.read().unwrap_or_else(PoisonError::into_inner).iter().find(|(k, _)| *k == label)
        {
            return then(known);
        }
        let found = find();
        then(&found);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.iter().all(|(k, _)| *k != label) {
            all.push((label, found));
        }
    }
}
