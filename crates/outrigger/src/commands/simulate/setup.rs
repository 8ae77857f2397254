//! From a fleet file to what is simulated: its engines, the names that traces may use, and what goes wrong.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use outrigger_core::fleet::{Fleet, ModelId};
use outrigger_plan::sim::{Happening, Setup};

use super::{Args, engines, grid::Run, place};
use crate::{commands::input::Failed, config};

/// A simulation that can be run, and what its user should know of it.
pub(super) struct Ready {
    pub(super) setup: Setup,
    pub(super) notes: Vec<String>,
}

pub(super) fn load(run: &Run, args: &Args) -> Result<Ready, Failed> {
    let path: &Path = &run.fleet;
    let mut fleet = config::load(path).map_err(|error| Failed::of_config(path, &error))?.fleet;
    if let Some(mode) = run.mode {
        fleet.models.iter_mut().for_each(|model| model.mode = mode);
    }
    let mut notes = Vec::new();
    let engines = fleet.backends.iter().map(|b| engines::engine(&fleet, b, &mut notes)).collect::<Result<_, _>>()?;
    let model = match &args.model {
        None => ModelId(0),
        Some(name) => fleet.model_by_name(name).ok_or_else(|| {
            let known: Vec<&str> = fleet.models.iter().map(|m| m.name.as_str()).collect();
            Failed::usage(format!("{}: no model `{name}`\n  help: name one of: {}", path.display(), known.join(", ")))
        })?,
    };
    if fleet.models.is_empty() {
        return Err(Failed::usage(format!("{}: no model is in this fleet", path.display())));
    }
    let names: BTreeMap<String, ModelId> = (fleet.models.iter().enumerate())
        .flat_map(|(i, m)| m.aliases.iter().chain([&m.name]).map(move |n| (n.clone(), ModelId(i as u16))))
        .collect();
    let happenings = events(args, &fleet)?;
    let scrape_every = (args.scrape_every > 0.0).then(|| Duration::from_secs_f64(args.scrape_every.clamp(0.01, 1e6)));
    let places = place::places(&args.place, &fleet, &mut notes);
    let setup = Setup {
        fleet: Arc::new(fleet),
        engines,
        seed: run.seed,
        model,
        names,
        happenings,
        scrape_every,
        pools_are_warm: args.warm,
        places,
    };
    Ok(Ready { setup, notes })
}

fn events(args: &Args, fleet: &Fleet) -> Result<Vec<Happening>, Failed> {
    let Some(path) = &args.events else { return Ok(Vec::new()) };
    let text = fs::read_to_string(path).map_err(|e| Failed::unreadable(path, &e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let parse = |(i, line): (usize, &str)| {
        let at = |message: String, help: &str| {
            Failed::usage(format!("{}: row {}: {message}\n  help: {help}", path.display(), i + 1))
        };
        let happening = Happening::parse(line).map_err(|message| {
            at(message, "write one event a line, such as {\"event\":\"outage\",\"cloud\":\"lambda\",\"at_s\":600,\"for_s\":300}")
        })?;
        if let Some(name) = &happening.backend
            && fleet.backend_by_name(name).is_none()
        {
            let known: Vec<&str> = fleet.backends.iter().map(|b| b.name.as_str()).collect();
            return Err(at(format!("there is no backend `{name}`"), &format!("name one of: {}", known.join(", "))));
        }
        if let Some(name) = &happening.cloud
            && !fleet.clouds.iter().any(|c| c.name == *name)
        {
            let known: Vec<&str> = fleet.clouds.iter().map(|c| c.name.as_str()).collect();
            return Err(at(format!("there is no cloud `{name}`"), &format!("name one of: {}", known.join(", "))));
        }
        Ok(happening)
    };
    lines.map(parse).collect()
}
