//! What an engine is measured to do on its own: a closed loop of 1, 2 and 4 clients, without a gateway.
//!
//! Clients draw lengths from a few, so that they do not begin and end in step, as clients with one length would. Times are
//! those that a client sees, over the same kind of connection as the trace's.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use rand_core::{Rng as _, SeedableRng as _};
use tokio::{sync::Mutex, task::JoinSet, time::Instant};

use super::{super::Asked, completion};
use crate::simulated::sockets;

pub(super) const PROMPTS: [u64; 3] = [48, 128, 320];
const OUTPUTS: [u64; 3] = [8, 16, 24];
/// Clients, and the requests that they send together.
const LEVELS: [(usize, usize); 3] = [(1, 30), (2, 40), (4, 48)];
pub(super) const HEADER: &str = "model,system,gpus,backend,precision,isl,osl,concurrency,ttft_ms,tpot_ms\n";

/// Sums over the requests with one length of prompt at one level.
#[derive(Debug, Default)]
struct Sums {
    requests: f64,
    output: f64,
    ttft_ms: f64,
    decoding_ms: f64,
}

/// Rows of the table that `engine_model: { measured }` reads.
pub(super) async fn rows(server: SocketAddr, seed: u64) -> String {
    let mut rows = String::new();
    for (clients, requests) in LEVELS {
        for (prompt, sums) in level(server, clients, requests, seed).await {
            let (output, ttft) = (sums.output / sums.requests, sums.ttft_ms / sums.requests);
            let tpot = sums.decoding_ms / (sums.output - sums.requests);
            let _ = writeln!(rows, "tiny,cpu,1,llamacpp,f32,{prompt},{output:.0},{clients},{ttft:.3},{tpot:.4}");
        }
    }
    rows
}

async fn level(server: SocketAddr, clients: usize, requests: usize, seed: u64) -> BTreeMap<u64, Sums> {
    let queue = Arc::new(Mutex::new(drawn(requests, seed)));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let queue = queue.clone();
        running.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let Some((number, asked)) = queue.lock().await.pop() else { return seen };
                let answer = sockets::ask(server, completion(asked), Instant::now()).await;
                assert_eq!(answer.fault, None, "calibration");
                seen.push((number, asked, answer));
            }
        });
    }
    let mut sums = BTreeMap::<u64, Sums>::new();
    // The first of each client begin together, and the last run beside ever fewer.
    let steady = clients..requests - clients;
    for (_, asked, answer) in running.join_all().await.concat().iter().filter(|(number, ..)| steady.contains(number)) {
        let (ttft, whole) = (answer.ttft.unwrap().as_secs_f64() * 1e3, answer.took.as_secs_f64() * 1e3);
        let sums = sums.entry(asked.prompt).or_default();
        sums.requests += 1.0;
        sums.output += asked.output as f64;
        sums.ttft_ms += ttft;
        sums.decoding_ms += whole - ttft;
    }
    sums
}

/// Numbered, the first at the end.
fn drawn(requests: usize, seed: u64) -> Vec<(usize, Asked)> {
    let mut rng = outrigger_core::Rng::seed_from_u64(seed);
    let mut one_of = |of: [u64; 3]| of[rng.next_u64() as usize % of.len()];
    let numbered = (0..requests).map(|number| {
        let at = Duration::from_nanos(seed * 1_000_000 + number as u64);
        (number, Asked { at, prompt: one_of(PROMPTS), output: one_of(OUTPUTS) })
    });
    let mut all: Vec<_> = numbered.collect();
    all.reverse();
    all
}
