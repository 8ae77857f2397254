//! What is billed for a request and by the clock, in the log and in the metrics.

use super::{Engines, Gateway, eventually, hello, one_backend, signals::series};

#[test]
fn bytes_between_two_clouds_are_billed_to_who_sends_them() {
    let engines = Engines::instant(1);
    // The request leaves aws at the list price of 0.09 USD a gigabyte, the answer leaves `c` at 0.02.
    let fleet = one_backend(&engines.url(0))
        .replace("clouds:\n  c: {}\n", "gateway:\n  cloud: aws\nclouds:\n  c: { egress_usd_per_gb: 0.02 }\n");
    let gateway = Gateway::start("egress", &fleet);
    assert_eq!(gateway.chat(&hello()).status, 200);
    eventually("its line", || !gateway.log().is_empty());
    let attempt = gateway.log()[0]["attempts"][0].clone();
    let bytes = |key: &str| attempt[key].as_u64().unwrap();
    let (sent, received) = (bytes("bytes_out"), bytes("bytes_in"));
    assert!(sent > 0 && received > 0, "{attempt}");
    // A USD for a gigabyte is a nano-USD for a byte; each direction is rounded by itself.
    let nano_usd = (sent * 90 + 500) / 1_000 + (received * 20 + 500) / 1_000;
    assert_eq!(attempt["cost_nano_usd"]["egress"], nano_usd, "{attempt}");
    let shown = series(&gateway, "outrigger_marginal_cost_usd_total", &["backend=\"b\"", "kind=\"egress\""]).unwrap();
    assert!((shown * 1e9 - nano_usd as f64).abs() < 0.5, "{shown}");

    // A backend in the gateway's own cloud costs nothing to reach.
    std::fs::write(gateway.fleet_file(), fleet.replace("cloud: aws", "cloud: c")).unwrap();
    gateway.json(&["reload"]);
    assert_eq!(gateway.chat(&hello()).status, 200);
    eventually("its line", || gateway.log().len() == 2);
    assert_eq!(gateway.log()[1]["attempts"][0]["cost_nano_usd"]["egress"], 0);
}

#[test]
fn pools_cost_by_the_clock_whether_they_are_used_or_not() {
    let engines = Engines::instant(1);
    // 3,600 USD an hour is one a second, so that a test sees it grow.
    let pools = |usd: u32| {
        format!(
            "clouds:\n  c: {{}}\npools:\n  base:\n    cloud: c\n    gpu: h100\n    gpus: 4\n    reserved: {{ usd_per_gpu_hour: {usd} }}\n  \
             burst:\n    cloud: c\n    gpu: h100\n    gpus: {{ min: 0, max: 8 }}\n    on_demand: {{ usd_per_gpu_hour: 900 }}\n"
        )
    };
    let fleet = |usd| one_backend(&engines.url(0)).replace("clouds:\n  c: {}\n", &pools(usd));
    let gateway = Gateway::start("pool_cost", &fleet(900));
    let base = || {
        series(&gateway, "outrigger_pool_cost_usd_total", &["pool=\"base\"", "cloud=\"c\"", "kind=\"reserved\""])
            .unwrap()
    };
    let first = base();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let second = base();
    assert!((0.2..5.0).contains(&(second - first)), "{first} then {second}");
    let burst = series(&gateway, "outrigger_pool_cost_usd_total", &["pool=\"burst\"", "kind=\"on_demand\""]);
    assert_eq!(burst, Some(0.0), "none of it is rented");
    // What has accrued stays at the price of its time.
    std::fs::write(gateway.fleet_file(), fleet(1)).unwrap();
    gateway.json(&["reload"]);
    let third = base();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let fourth = base();
    assert!(third >= second && fourth > third && fourth - third < 0.01, "{second}, {third}, {fourth}");
}
