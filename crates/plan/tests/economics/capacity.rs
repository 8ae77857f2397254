//! From requests to replicas to machines.

use outrigger_plan::economics::{Demand, Fit, Level, Point, Profile, Shape, Slo, slots};

fn profile() -> Profile {
    let point = |concurrency, ttft_ms, tpot_ms| Point { concurrency, ttft_ms, tpot_ms };
    Profile { gpu: "h100".into(), gpus: 4, points: vec![point(4, 100.0, 15.0), point(64, 400.0, 30.0)] }
}

#[test]
fn the_largest_concurrency_within_both_objectives() {
    let slo = |ttft_ms, tpot_ms| Slo { ttft_ms, tpot_ms };
    assert_eq!(slots(&profile(), slo(1_000.0, 50.0)).unwrap().0, 64);
    assert_eq!(slots(&profile(), slo(250.0, 50.0)).unwrap(), (34, 250.0, 22.5));
    assert_eq!(slots(&profile(), slo(1_000.0, 15.0)).unwrap(), (4, 100.0, 15.0));
    assert_eq!(slots(&profile(), slo(1_000.0, 10.0)), None);
}

/// M/M/c from the textbook: c = 2, a = 1 gives C = 1/3.
#[test]
fn erlang_c_is_the_textbooks() {
    let fit =
        Fit { slots: 1, ttft_ms: 0.0, tpot_ms: 0.0, service_s: 1.0, wait_s: 0.0, arrival_cv: 1.0, service_cv: 1.0 };
    assert!((fit.waits_longer(1.0, 2, 0.0) - 1.0 / 3.0).abs() < 1e-12);
    assert!((fit.waits_longer(1.0, 2, 2.0) - (-2.0_f64).exp() / 3.0).abs() < 1e-12);
    assert!((fit.waits_longer(2.0, 2, 5.0) - 1.0).abs() < 1e-12);
}

#[test]
fn replicas_grow_with_the_rate_and_one_fewer_is_too_few() {
    let demand = Demand {
        levels: vec![Level { seconds: 1, micro_rps: 1 }],
        prompt_milli: 1_000_000,
        output_milli: 200_000,
        output_cv: 1.0,
        arrival_cv: 1.0,
    };
    let fit = Fit::new(&profile(), &demand, Slo { ttft_ms: 800.0, tpot_ms: 50.0 }).unwrap();
    assert_eq!((fit.slots, fit.wait_s), (64, 0.4));
    let mut last = 0;
    for tenths in 1..800 {
        let rate = f64::from(tenths) / 10.0;
        let n = fit.replicas(rate, 0).unwrap();
        assert!(n >= last && fit.late(rate * fit.service_s, n * 64) <= 0.05);
        assert!(n == 1 || fit.late(rate * fit.service_s, (n - 1) * 64) > 0.05, "{rate}: {n}");
        last = n;
    }
    assert_eq!((fit.replicas(0.0, 3), fit.replicas(1e9, 0)), (Some(0), None));
}

#[test]
fn machines_are_whole_and_no_fewer_than_can_be_rented() {
    let shape = |replica_gpus, instance_gpus, min_gpus| Shape { replica_gpus, instance_gpus, min_gpus };
    let cases = [(shape(4, 8, 8), 3, 2, 4), (shape(4, 1, 1), 3, 12, 3), (shape(3, 8, 8), 3, 2, 4)];
    for (shape, replicas, instances, holds) in cases {
        assert_eq!((shape.instances(replicas), shape.replicas(instances)), (instances, holds), "{shape:?}");
    }
    assert_eq!(shape(1, 1, 8).instances(3), 8, "a minimum of eight");
    assert_eq!(shape(1, 1, 8).instances(0), 0);
}

#[test]
fn many_rates_need_what_each_of_them_needs() {
    let fit =
        Fit { slots: 3, ttft_ms: 100.0, tpot_ms: 20.0, service_s: 2.0, wait_s: 0.7, arrival_cv: 1.1, service_cv: 0.8 };
    let rates: Vec<f64> = (0..4_000).map(|i| f64::from(i * i) / 4e5).collect();
    let mut least = 0;
    let one_by_one = rates.iter().map(|rate| {
        least = fit.replicas(*rate, least).unwrap();
        least
    });
    assert_eq!(fit.need(&rates).unwrap(), one_by_one.collect::<Vec<u32>>());
    assert_eq!(fit.need(&[1.0, 1e9]), None);
}
