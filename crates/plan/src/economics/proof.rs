//! An option as queues that can be simulated, and what the closed form says of their waits.
//!
//! The plan decides with a formula for each level; a simulation plays requests through the same machines. What both say
//! of the same thing is put side by side, so that whoever doubts the formula sees where it is off.

use outrigger_core::units::NanoUsd;

use super::{
    capacity::Fit,
    design::Mode,
    evaluate::{World, committed, paid, shape},
    plan::Choice,
    scenario::Scenario,
};

/// Machines of one kind.
#[derive(Clone, Debug)]
pub struct Machines {
    pub cloud: String,
    pub gpu: String,
    pub gpus_each: u32,
    pub replica_gpus: u32,
    pub count: u32,
    pub replicas: u32,
    pub fit: Fit,
    pub usd_per_hour_each: NanoUsd,
    pub cold_start_s: u64,
}

/// A part of the load with its machines.
#[derive(Clone, Debug)]
pub struct Stage {
    pub percent: u32,
    /// There all the time.
    pub steady: Machines,
    /// As many as the peak needs, where there is a base.
    pub burst: Option<Machines>,
    /// Seconds, requests per second of this part, and slots that the plan has there.
    pub levels: Vec<(u64, f64, u32)>,
}

/// The stages of an option; none where it has no GPUs.
pub fn stages(scenario: &Scenario, choice: &Choice) -> Vec<Stage> {
    let world = World::new(scenario);
    let Some(done) = &choice.evaluated else { return Vec::new() };
    let mut bases = done.bases.iter();
    let stage = |leg: &super::Leg| match leg.mode {
        Mode::Peak => peak(&world, leg),
        Mode::Base { burst } => based(&world, leg, burst, *bases.next()?),
    };
    choice.design.legs.iter().filter_map(stage).collect()
}

fn machines(world: &World<'_>, cloud: usize, count: u32, usd_per_hour_each: NanoUsd) -> Option<Machines> {
    let (candidate, shape) = (&world.scenario.clouds[cloud], shape(world.scenario, cloud));
    Some(Machines {
        cloud: candidate.cloud.clone(),
        gpu: candidate.gpu.clone(),
        gpus_each: candidate.instance_gpus,
        replica_gpus: shape.replica_gpus,
        count,
        replicas: shape.replicas(count),
        fit: *world.fit(cloud)?,
        usd_per_hour_each,
        cold_start_s: candidate.cold_start_s,
    })
}

fn peak(world: &World<'_>, leg: &super::Leg) -> Option<Stage> {
    let (shape, there) = (shape(world.scenario, leg.cloud), committed(world.scenario, leg.cloud));
    let need = world.need(leg.cloud, leg.percent, 1_000).ok()?;
    let count = paid(shape.instances(need.last().copied()?), there, shape) + there;
    let steady = machines(world, leg.cloud, count, world.scenario.clouds[leg.cloud].usd_per_hour)?;
    let slots = steady.replicas * steady.fit.slots;
    let levels = world.levels.iter().map(|level| (level.seconds, World::rate(level, leg.percent, 1_000), slots));
    Some(Stage { percent: leg.percent, levels: levels.collect(), steady, burst: None })
}

fn based(world: &World<'_>, leg: &super::Leg, burst: usize, base: u32) -> Option<Stage> {
    let scenario = world.scenario;
    let own = world.need(leg.cloud, leg.percent, 1_000).ok()?;
    let theirs = world.need(burst, leg.percent, 1_000).ok()?;
    let candidate = &scenario.clouds[leg.cloud];
    let reserved = candidate.reserved_usd_per_gpu_hour?;
    let each = NanoUsd(reserved.0.saturating_mul(candidate.instance_gpus.into()));
    let steady = machines(world, leg.cloud, base + committed(scenario, leg.cloud), each)?;
    let there = if burst == leg.cloud { 0 } else { committed(scenario, burst) };
    let burst_shape = shape(scenario, burst);
    let burst_fit = world.fit(burst)?;
    let mut levels = Vec::new();
    let mut most = 0;
    for (level, (own, theirs)) in world.levels.iter().zip(own.iter().zip(theirs.iter())) {
        let over = own.saturating_sub(steady.replicas);
        let replicas = (u64::from(*theirs) * u64::from(over)).div_ceil(u64::from((*own).max(1))) as u32;
        let count = if over == 0 { 0 } else { paid(burst_shape.instances(replicas), there, burst_shape) + there };
        most = most.max(count);
        let slots = steady.replicas * steady.fit.slots + burst_shape.replicas(count) * burst_fit.slots;
        levels.push((level.seconds, World::rate(level, leg.percent, 1_000), slots));
    }
    let burst = machines(world, burst, most, scenario.clouds[burst].usd_per_hour)?;
    Some(Stage { percent: leg.percent, steady, burst: Some(burst).filter(|burst| burst.count > 0), levels })
}

/// The wait that one request of twenty is longer than, over all levels and parts, in seconds: by halving of the sum over
/// levels of requests times the share that waits longer.
pub fn closed_wait_p95(stages: &[Stage]) -> f64 {
    let all: f64 = stages.iter().flat_map(|stage| &stage.levels).map(|(seconds, rps, _)| *seconds as f64 * rps).sum();
    let longer = |wait: f64| -> f64 {
        let of = |stage: &Stage| -> f64 {
            let fit = stage.steady.fit;
            let late = |(seconds, rps, slots): &(u64, f64, u32)| {
                *seconds as f64 * rps * fit.waits_longer(rps * fit.service_s, *slots, wait)
            };
            stage.levels.iter().map(late).sum()
        };
        stages.iter().map(of).sum::<f64>() / all
    };
    let (mut low, mut high) = (0.0, 3_600.0);
    if longer(low) <= 0.05 {
        return 0.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if longer(middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}
