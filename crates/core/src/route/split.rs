//! Exact weights: which backend is next, so that every prefix of requests is within one of its share.
//!
//! Smooth weighted round robin, which most proxies use, deviates by up to about 1.25 requests from five backends on.
//! Tijdeman's chairman assignment (R. Tijdeman, *The chairman assignment problem*, Discrete Mathematics 32, 1980)
//! stays below 1 − 1/(2k − 2) for k backends: among those that may have a further request without exceeding their
//! share, the one whose deadline comes first.
//!
//! Each backend has a credit: requests it should have had minus requests it got. Only the backends that take part in
//! a choice are credited, so that one which is away builds up no debt and returns without a burst.

/// One that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contender {
    /// Index into the credits.
    pub index: usize,
    /// Effective weight, above zero.
    pub weight: f64,
}

/// Chooses one of `contenders` and books the choice in `credits`. `None` when there are none.
pub fn choose(credits: &mut [f64], contenders: &[Contender]) -> Option<usize> {
    let total: f64 = contenders.iter().map(|c| c.weight).sum();
    let held: f64 = contenders.iter().map(|c| credits[c.index]).sum();
    let slack = 1.0 / (2.0 * contenders.len() as f64 - 2.0).max(1.0);
    let credit_of = |c: &Contender| {
        let share = c.weight / total;
        (credits[c.index] + share * (1.0 - held), share)
    };
    let deadline = |c: &Contender| {
        let (credit, share) = credit_of(c);
        (1.0 - slack - credit) / share
    };
    // Rounding must not shut everyone out, hence the tolerance; within it an earlier deadline still wins.
    let may_have_more = |c: &&Contender| credit_of(c).0 >= slack - 1e-9;
    let winner = contenders
        .iter()
        .filter(may_have_more)
        .min_by(|a, b| deadline(a).total_cmp(&deadline(b)))
        .or_else(|| contenders.iter().max_by(|a, b| credit_of(a).0.total_cmp(&credit_of(b).0)))?
        .index;
    for c in contenders {
        credits[c.index] += c.weight / total;
    }
    credits[winner] -= 1.0;
    Some(winner)
}

/// The same in shares of an amount, such as tokens: whoever is owed most gets all of it. What it really was is known
/// only at the end, and then [`settle`] corrects it; estimates alone would favour whoever gets the long answers.
pub fn choose_amount(credits: &mut [f64], contenders: &[Contender], amount: f64) -> Option<usize> {
    let total: f64 = contenders.iter().map(|c| c.weight).sum();
    for c in contenders {
        credits[c.index] += c.weight / total * amount;
    }
    let winner = contenders.iter().max_by(|a, b| credits[a.index].total_cmp(&credits[b.index]))?.index;
    credits[winner] -= amount;
    Some(winner)
}

/// Corrects the choice of `winner` by what it took beyond its estimate, in a split of `weights`.
pub fn settle(credits: &mut [f64], weights: &[u32], winner: usize, beyond: f64) {
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    if winner >= credits.len() || total <= 0.0 {
        return;
    }
    for (credit, weight) in credits.iter_mut().zip(weights) {
        *credit += f64::from(*weight) / total * beyond;
    }
    credits[winner] -= beyond;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contenders(weights: &[u32]) -> Vec<Contender> {
        weights.iter().enumerate().map(|(index, w)| Contender { index, weight: f64::from(*w) }).collect()
    }

    /// Largest distance of any backend from its share, over every prefix of `n` choices.
    fn worst_deviation(weights: &[u32], n: usize) -> f64 {
        let contenders = contenders(weights);
        let total: f64 = contenders.iter().map(|c| c.weight).sum();
        let mut credits = vec![0.0; weights.len()];
        let mut got = vec![0_u32; weights.len()];
        let mut worst = 0.0_f64;
        for i in 1..=n {
            got[choose(&mut credits, &contenders).expect("contenders")] += 1;
            for c in &contenders {
                worst = worst.max((f64::from(got[c.index]) - i as f64 * c.weight / total).abs());
            }
        }
        worst
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn every_prefix_is_within_one_of_its_share(weights in proptest::collection::vec(1_u32..1_000, 2..=20)) {
            let worst = worst_deviation(&weights, 10_000);
            prop_assert!(worst < 1.0, "{weights:?}: {worst}");
        }

        #[test]
        fn one_that_was_away_returns_without_a_burst(
            weights in proptest::collection::vec(1_u32..100, 3..=8), away in 1_usize..2_000,
        ) {
            let all = contenders(&weights);
            let mut credits = vec![0.0; weights.len()];
            for _ in 0..500 { choose(&mut credits, &all); }
            for _ in 0..away { choose(&mut credits, &all[1..]); }
            let total: f64 = all.iter().map(|c| c.weight).sum();
            let mut got = 0.0;
            for n in 1..=200 {
                got += f64::from(u8::from(choose(&mut credits, &all) == Some(0)));
                prop_assert!(got - f64::from(n) * all[0].weight / total < 2.0);
            }
        }
    }

    /// Answers with a heavy tail, known to within 70 % beforehand: the shares of tokens are exact all the same.
    #[test]
    fn shares_of_tokens_are_settled_with_what_was_used() {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut rng = crate::Rng::seed_from_u64(1);
        let mut unit = || (f64::from(rng.next_u32()) + 1.0) / 4_294_967_296.0;
        let weights = [60, 25, 15];
        let contenders = contenders(&weights);
        let (mut credits, mut got, mut pending) = (vec![0.0; 3], [0.0; 3], std::collections::VecDeque::new());
        for _ in 0..10_000 {
            let actual = 300.0 * (-unit().ln()).powf(1.7);
            let estimate = actual * (0.3 + 1.4 * unit());
            let winner = choose_amount(&mut credits, &contenders, estimate).expect("contenders");
            got[winner] += actual;
            pending.push_back((winner, actual - estimate));
            if pending.len() > 50
                && let Some((winner, beyond)) = pending.pop_front()
            {
                settle(&mut credits, &weights, winner, beyond);
            }
        }
        let all: f64 = got.iter().sum();
        for (got, weight) in got.iter().zip(weights) {
            assert!((got / all - f64::from(weight) / 100.0).abs() < 0.005, "{} for {weight}", got / all);
        }
    }

    #[test]
    fn sixty_to_forty_is_exact() {
        assert!(worst_deviation(&[60, 40], 10_000) < 0.75);
        assert!(worst_deviation(&[3, 2, 2], 10_000) < 0.76, "weights need not add up to 100");
    }
}
