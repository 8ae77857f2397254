//! What is played side by side: each fleet in each mode with each seed.

use std::{path::PathBuf, str::FromStr};

use outrigger_core::fleet::Mode;

use super::Args;

/// How a backend is chosen inside a tier, by the name in the fleet file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModeName(pub(super) Mode);

impl FromStr for ModeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "weighted" => Ok(Self(Mode::Weighted)),
            "latency" => Ok(Self(Mode::Latency)),
            "cheapest" => Ok(Self(Mode::Cheapest)),
            _ => Err("it is one of weighted, latency and cheapest".to_owned()),
        }
    }
}

impl ModeName {
    fn as_str(self) -> &'static str {
        match self.0 {
            Mode::Weighted => "weighted",
            Mode::Latency => "latency",
            Mode::Cheapest => "cheapest",
        }
    }
}

/// One simulation of several.
pub(super) struct Run {
    /// From 0, in the order that they are told in.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) fleet: PathBuf,
    pub(super) mode: Option<Mode>,
    pub(super) seed: u64,
}

/// All of them: the fleet changes slowest, the seed fastest.
pub(super) fn runs(args: &Args) -> Vec<Run> {
    let modes: Vec<Option<ModeName>> =
        if args.mode.is_empty() { vec![None] } else { args.mode.iter().copied().map(Some).collect() };
    let mut runs = Vec::new();
    for fleet in &args.fleet {
        for mode in &modes {
            for seed in &args.seed {
                let mode_part = (modes.len() > 1).then(|| mode.map_or("", ModeName::as_str).to_owned());
                let seed_part = (args.seed.len() > 1).then(|| format!("seed {seed}"));
                let parts: Vec<String> = mode_part.into_iter().chain(seed_part).collect();
                let name = fleet.display().to_string();
                let name = if parts.is_empty() { name } else { format!("{name} ({})", parts.join(", ")) };
                let mode = mode.map(|mode| mode.0);
                runs.push(Run { number: runs.len(), name, fleet: fleet.clone(), mode, seed: *seed });
            }
        }
    }
    runs
}

/// One of several parts of the runs, each for a machine of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// From 0.
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Shard {
    pub(super) fn has(self, number: usize) -> bool {
        number % self.of == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse::<usize>().ok()?, n.parse::<usize>().ok()?)));
        match parts {
            Some((index, of)) if index >= 1 && index <= of => Ok(Self { index: index - 1, of }),
            _ => Err("write it as I/N, such as 1/4 for the first of four".to_owned()),
        }
    }
}
