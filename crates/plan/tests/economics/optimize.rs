//! The search over machines against trying every count.

use proptest::prelude::*;

use outrigger_plan::economics::search::{Machine, Target, cheapest};

/// Every count of every machine.
fn brute(machines: &[Machine], committed: &[u128], target: Target) -> Option<i64> {
    let most: Vec<u32> =
        machines.iter().map(|m| u32::try_from(target.all.div_ceil(m.capacity)).unwrap().max(m.least)).collect();
    let mut counts = vec![0_u32; machines.len()];
    let mut best: Option<i64> = None;
    loop {
        let mut by = committed.to_vec();
        let mut cost = 0;
        for (machine, count) in machines.iter().zip(&counts) {
            by[machine.provider] += machine.capacity * u128::from(*count);
            cost += machine.nano_per_month * i64::from(*count);
        }
        let total: u128 = by.iter().sum();
        let used = by.iter().filter(|own| **own > 0).count();
        let rentable = machines.iter().zip(&counts).all(|(m, count)| *count == 0 || *count >= m.least);
        let survives = target.survives == 0 || by.iter().all(|own| total - own >= target.survives);
        let spread = !target.one_provider || used <= 1;
        if rentable && survives && spread && total >= target.all {
            best = Some(best.map_or(cost, |best: i64| best.min(cost)));
        }
        let Some(next) = counts.iter().zip(&most).position(|(count, most)| count < most) else { return best };
        counts[..next].fill(0);
        counts[next] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_search_finds_what_trying_everything_finds(
        rows in prop::collection::vec((0..3_usize, 1..9_u128, 1..60_i64, 0..4_u32), 1..5),
        committed in prop::collection::vec(0..4_u128, 3),
        (all, percent, one_provider) in (1..16_u128, 0..=100_u128, prop::bool::weighted(0.1)),
    ) {
        let machine = |(i, (provider, capacity, cost, least)): (usize, (usize, u128, i64, u32))| Machine {
            provider, offer: i, capacity: capacity * 100, nano_per_month: cost, least, group: 1,
        };
        let machines: Vec<Machine> = rows.into_iter().enumerate().map(machine).collect();
        let committed: Vec<u128> =
            committed.iter().map(|own| if one_provider { 0 } else { own * 100 }).collect();
        let target = Target { all: all * 100, survives: all * percent, one_provider };
        let found = cheapest(&machines, &committed, target);
        prop_assert_eq!(found.as_ref().map(|pair| pair.cost), brute(&machines, &committed, target));
        if let Some(pair) = found {
            let cost: i64 = pair.picks.iter().map(|(i, n)| machines[*i].nano_per_month * i64::from(*n)).sum();
            prop_assert_eq!(cost, pair.cost);
        }
    }
}
