//! What is true only for now: a drain at three in the morning, other weights during a rollout.
//!
//! Each overlay has an owner, a reason and an expiry, so that none is forgotten; it ends by expiry or by command. With
//! a state folder they survive a restart (a JSON file, replaced by rename after fsync); without one they are in memory
//! and say so. An overlay whose target is not in the fleet stays dormant until it expires: a reload that brings the
//! target back brings it back too.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use outrigger_core::{state::State, units::Nanos};
use serde::{Deserialize, Serialize};

/// How long an operator's overlay holds when no time is given.
pub const DEFAULT_TIME: std::time::Duration = std::time::Duration::from_hours(2);
const FILE: &str = "overlays.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    #[serde(flatten)]
    pub what: What,
    pub owner: String,
    pub why: String,
    pub since: Nanos,
    pub until: Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    Drain {
        backend: String,
    },
    Weights {
        model: String,
        /// From 1.
        tier: usize,
        weights: Vec<(String, u32)>,
    },
}

impl What {
    fn same_target(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Drain { backend: a }, Self::Drain { backend: b }) => a == b,
            (Self::Weights { model: a, tier: s, .. }, Self::Weights { model: b, tier: t, .. }) => a == b && s == t,
            _ => false,
        }
    }
}

#[derive(Debug)]
pub struct Overlays {
    active: Mutex<Vec<Overlay>>,
    file: Option<PathBuf>,
}

impl Overlays {
    /// Those of an earlier run, where a state folder is set.
    pub fn open(state_dir: Option<&Path>) -> io::Result<Self> {
        let Some(dir) = state_dir else { return Ok(Self { active: Mutex::default(), file: None }) };
        fs::create_dir_all(dir)?;
        let file = dir.join(FILE);
        let active = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", file.display())))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        Ok(Self { active: Mutex::new(active), file: Some(file) })
    }

    pub fn is_durable(&self) -> bool {
        self.file.is_some()
    }

    pub fn list(&self) -> Vec<Overlay> {
        self.lock().clone()
    }

    /// Adds one; it replaces an earlier one on the same target. Not acknowledged unless it is on disk, where it is to be.
    pub fn add(&self, overlay: Overlay) -> io::Result<()> {
        self.change(|active| {
            active.retain(|o| !o.what.same_target(&overlay.what));
            active.push(overlay);
        })
    }

    /// Ends one by its target. `false` when there was none.
    pub fn end(&self, target: &What) -> io::Result<bool> {
        let mut ended = false;
        self.change(|active| {
            let before = active.len();
            active.retain(|o| !o.what.same_target(target));
            ended = active.len() < before;
        })?;
        Ok(ended)
    }

    /// Ends those whose time is over. `true` when there were any.
    pub fn expire(&self, now: Nanos) -> bool {
        if self.lock().iter().all(|o| o.until > now) {
            return false;
        }
        // A disk that cannot take the change keeps an overlay whose time is over, which expires again after a restart.
        drop(self.change(|active| active.retain(|o| o.until > now)));
        true
    }

    /// Names of overlays whose target the state's fleet does not have.
    pub fn dormant(&self, state: &State) -> Vec<Overlay> {
        self.list().into_iter().filter(|o| !has_target(state, &o.what)).collect()
    }

    /// Sets drains and weights to what the file and the overlays say together.
    pub fn apply_to(&self, state: &mut State) {
        let fleet = state.fleet().clone();
        let active = self.lock();
        for (i, backend) in fleet.backends.iter().enumerate() {
            let drained = active.iter().any(|o| matches!(&o.what, What::Drain { backend: b } if *b == backend.name));
            state.set_drained(outrigger_core::fleet::BackendId(i as u16), drained);
        }
        for (m, model) in fleet.models.iter().enumerate() {
            for (t, tier) in model.tiers.iter().enumerate() {
                let overlay = active.iter().find_map(|o| match &o.what {
                    What::Weights { model: name, tier, weights } if *name == model.name && *tier == t + 1 => {
                        Some(weights)
                    }
                    _ => None,
                });
                let weight_of = |name: &str, weights: &[(String, u32)]| {
                    weights.iter().find(|(b, _)| b == name).map_or(0, |(_, w)| *w)
                };
                let weights = overlay.map(|w| {
                    tier.split.iter().map(|s| weight_of(&fleet.backend(s.backend).name, w)).collect::<Vec<u32>>()
                });
                state.set_weights(outrigger_core::fleet::ModelId(m as u16), t, weights.as_deref());
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Overlay>)) -> io::Result<()> {
        let mut active = self.lock();
        let mut next = active.clone();
        change(&mut next);
        if let Some(file) = &self.file {
            write_whole(file, &next)?;
        }
        *active = next;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Overlay>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_target(state: &State, what: &What) -> bool {
    match what {
        What::Drain { backend } => state.fleet().backend_by_name(backend).is_some(),
        What::Weights { model, tier, .. } => {
            state.fleet().model_by_name(model).is_some_and(|m| *tier <= state.fleet().model(m).tiers.len())
        }
    }
}

/// Either the old file or the new one is there, whatever happens in between.
pub(crate) fn write_whole(file: &Path, things: &[impl Serialize]) -> io::Result<()> {
    let temporary = file.with_extension("json.new");
    let mut out = fs::File::create(&temporary)?;
    out.write_all(&serde_json::to_vec_pretty(things).map_err(io::Error::other)?)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    if let Some(dir) = file.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
