//! What a gateway takes while nothing happens.

use std::fs;

use super::{
    report,
    rig::{Engine, Gateway},
    wait,
};

const BAR_KIB: u64 = 15 << 10;

#[test]
fn an_idle_gateway_is_small() {
    let engines = [Engine::start(5.0, 10.0), Engine::start(5.0, 10.0)];
    let gateway = Gateway::before(&[&engines[0], &engines[1]]);
    wait(1.0);
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    report(&format!("idle memory of serve, {build} build"), &format!("{:.1} MiB", kib as f64 / 1024.0));
    // A debug build is larger, and nobody runs it.
    if !cfg!(debug_assertions) {
        assert!(kib <= BAR_KIB, "{kib} KiB");
    }
}
