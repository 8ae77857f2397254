//! Pools on demand that follow the load: asked for when it lasts, there after a cold start, paid for by the block.

use std::time::Duration;

use outrigger_core::{
    fleet::{CloudId, EnterWhen, Fleet, GpuCount, Pool, PoolId, PoolPrice},
    units::NanoUsd,
};
use outrigger_plan::{
    sim::{Happening, Report, Setup, happening::What},
    trace::Arrival,
};

use crate::fleets::{arrival, fleet, run, setup};

const SLOTS: u32 = 20;
const COLD_START: Duration = Duration::from_mins(5);
const BLOCK: Duration = Duration::from_mins(20);
const USD: f64 = 3.0;
/// Seconds, of the load that is too much for the reserved backend.
const PEAK: std::ops::Range<f64> = 600.0..3_000.0;

/// `b0` always there, `b1` of two engines in a pool from 0 to 2 GPUs by one, `b2` last.
fn burst() -> Fleet {
    let mut fleet = fleet(&[&[1], &[1], &[1]]);
    let usd_per_gpu_hour = NanoUsd::from_usd(USD).expect("finite");
    fleet.pools.push(Pool {
        name: "burst".to_owned(),
        cloud: CloudId(1),
        gpu: "h100".to_owned(),
        gpus: GpuCount { min: 0, max: 2, step: 1 },
        price: PoolPrice::OnDemand { usd_per_gpu_hour, billing_block: BLOCK, cold_start: COLD_START },
        scale: None,
    });
    fleet.backends[0].max_in_flight = Some(SLOTS);
    fleet.backends[1].pool = Some(PoolId(0));
    fleet.backends[1].replicas = 2;
    fleet.backends[1].max_in_flight = Some(SLOTS);
    let enter = Some(EnterWhen { wait_above: Duration::from_millis(500) });
    fleet.models[0].tiers[1].enter_when = enter;
    fleet.models[0].tiers[2].enter_when = enter;
    fleet
}

fn cold() -> Setup {
    let mut setup = setup(burst(), &[SLOTS, SLOTS / 2, 500], 1);
    setup.engines[1].servers = 2;
    setup.pools_are_warm = false;
    setup
}

/// Requests of two seconds for an hour and a half: 16 at once, 28 during the peak. `b0` takes 20, one engine of the
/// pool the rest.
fn load() -> impl Iterator<Item = Arrival> {
    let mut at = 0.0;
    std::iter::from_fn(move || {
        at += if PEAK.contains(&at) { 2.0 / 28.0 } else { 2.0 / 16.0 };
        (at < 5_400.0).then(|| arrival(at, 2.0))
    })
}

fn served_from(report: &Report, backend: usize) -> f64 {
    let series = &report.plots.series;
    let first = series.served[backend].iter().position(|n| *n > 0);
    first.map_or(f64::INFINITY, |step| step as f64 * series.step_s)
}

fn served_until(report: &Report, backend: usize) -> f64 {
    let series = &report.plots.series;
    let last = series.served[backend].iter().rposition(|n| *n > 0);
    last.map_or(0.0, |step| (step + 1) as f64 * series.step_s)
}

#[test]
fn a_step_is_there_after_its_cold_start_and_gone_after_its_block() {
    let report = run(&cold(), load());
    assert_eq!(report.failed, 0);
    let step = report.plots.series.step_s;
    let (from, until) = (served_from(&report, 1), served_until(&report, 1));
    // A minute of shortage, and the cold start.
    let due = PEAK.start + 60.0 + COLD_START.as_secs_f64();
    assert!((due..due + 45.0 + 2.0 * step).contains(&(from + step)), "first served at {from} s, due at {due} s");
    // Idle for a block after the peak, and then to the end of one.
    let least = PEAK.end + BLOCK.as_secs_f64();
    assert!(until >= PEAK.end && until <= least + BLOCK.as_secs_f64(), "served until {until} s");
    // Until then, the last tier took what the first could not.
    assert!(report.backends["b2"].requests > 0);
    let hours = report.backends["b1"].gpu_hours;
    let blocks = hours * 3_600.0 / BLOCK.as_secs_f64();
    assert!((blocks - blocks.round()).abs() < 0.01, "{blocks} blocks");
    // From the ask at 660 s to between 4,200 and 5,400 s: three or four of 1,200 s.
    assert!((3.0..=4.0).contains(&blocks.round()), "{blocks} blocks");
    let usd = report.backends["b1"].cost_nano_usd.gpu.as_usd();
    assert!((usd - hours * USD).abs() < 1e-6, "{usd} USD for {hours} h");
}

#[test]
fn a_load_that_fits_rents_nothing() {
    let report = run(&cold(), (0..40_000).map(|i| arrival(f64::from(i) * 2.0 / 16.0, 2.0)));
    assert_eq!((report.backends["b1"].gpu_hours, report.failed), (0.0, 0));
    assert_eq!(report.backends["b0"].requests, 40_000);
}

#[test]
fn warm_pools_serve_at_once() {
    let mut setup = cold();
    setup.pools_are_warm = true;
    let report = run(&setup, load());
    assert!(served_from(&report, 1) < PEAK.start + 30.0);
    assert_eq!(report.backends["b2"].requests, 0);
}

#[test]
fn a_cloud_without_capacity_lets_nothing_start() {
    let mut setup = cold();
    let (at_s, until) = (0.0, 1_500.0);
    let what = What::Capacity { share: 0.0 };
    setup.happenings = vec![Happening { at_s, for_s: Some(until), backend: Some("b1".into()), cloud: None, what }];
    let report = run(&setup, load());
    let from = served_from(&report, 1);
    assert!(from >= until + COLD_START.as_secs_f64() - report.plots.series.step_s, "first served at {from} s");
    assert_eq!(report.failed, 0);
}
