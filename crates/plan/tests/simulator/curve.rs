//! The curves that engines are stepped with.

use outrigger_plan::perf::{Curve, builtin};

#[test]
fn a_constant_engine_is_constant() {
    let curve = Curve::constant(4, 50.0);
    assert_eq!(curve.slots(), 4);
    assert!((curve.seconds_per_token(1) - 0.02).abs() < 1e-12);
    assert!((curve.seconds_per_token(99) - 0.02).abs() < 1e-12);
    assert!((curve.first_token_seconds(3, 1_000_000) - 0.02).abs() < 1e-12);
    assert_eq!(Curve::constant(0, 0.0).slots(), 1);
}

#[test]
fn every_measured_engine_has_a_usable_curve() {
    let model = builtin();
    for key in model.keys() {
        let curve = Curve::from_model(model, key, 256).unwrap();
        assert!((1..=256).contains(&curve.slots()), "{key}");
        for running in 1..=curve.slots() {
            let (now, next) = (curve.seconds_per_token(running), curve.seconds_per_token(running + 1));
            assert!(now > 1e-4 && now <= next && next < 1.0, "{key} {running}: {now} {next}");
            let (short, long) = (curve.first_token_seconds(running, 100), curve.first_token_seconds(running, 8_000));
            assert!(short > 0.0 && short <= long && long < 120.0, "{key} {running}: {short} {long}");
        }
        assert!(curve.seconds_per_token(0) <= curve.seconds_per_token(u32::MAX));
    }
}

#[test]
fn memory_bounds_the_slots() {
    let model = builtin();
    let key = model.keys().find(|k| k.model.ends_with("70B") && k.system == "h200_sxm" && k.gpus == 1).unwrap();
    let slots = Curve::from_model(model, key, 1_024).unwrap().slots();
    assert!((30..400).contains(&slots), "{slots}");
}
