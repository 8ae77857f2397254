//! The fitted model: a law per engine, a correction per model family.

use std::collections::BTreeMap;

use super::kriging::{self, Engine, Place, Residual, Scales};
use super::law::{At, Law, Measured};
use super::rows::{Key, Row};

/// Fitted from measured points; predicts at points that were not measured.
#[derive(Debug)]
pub struct PerfModel {
    engines: BTreeMap<Key, Fitted>,
    /// Engines of one model correct each other; engines of different models do not.
    families: Vec<Family>,
}

/// What a client of the closed loop would see on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Time to first token, waiting included.
    pub ttft_ms: f64,
    /// Time per output token after the first.
    pub tpot_ms: f64,
}

#[derive(Debug)]
struct Fitted {
    law: Law,
    points: Vec<Point>,
    /// Index into `families`.
    family: usize,
    engine: Engine,
}

/// A measured point, and how many rows it is the geometric mean of.
#[derive(Clone, Copy, Debug)]
struct Point {
    isl: u32,
    osl: u32,
    concurrency: u32,
    measured: Measured,
    /// Variances of the logarithms among repeats.
    ttft_variance: f64,
    tpot_variance: f64,
    repeats: f64,
}

#[derive(Debug, Default)]
struct Family {
    tpot: Correction,
    ttft: Correction,
}

#[derive(Debug, Default)]
struct Correction {
    places: Vec<Place>,
    residuals: Vec<Residual>,
    weights: Vec<f64>,
}

/// (ln TTFT, ln TPOT) of the rows of one point.
type Repeats = Vec<(f64, f64)>;

impl Point {
    fn pool((isl, osl, concurrency): (u32, u32, u32), repeats: &Repeats) -> Self {
        let (ttft, ttft_variance) = mean_and_variance(repeats.iter().map(|repeat| repeat.0));
        let (tpot, tpot_variance) = mean_and_variance(repeats.iter().map(|repeat| repeat.1));
        let at = at(isl, osl, concurrency);
        let measured = Measured { at, ttft_ms: ttft.exp(), tpot_ms: tpot.exp() };
        Self { isl, osl, concurrency, measured, ttft_variance, tpot_variance, repeats: repeats.len() as f64 }
    }
}

fn mean_and_variance(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0))
}

impl PerfModel {
    /// Fits all engines of the rows. The order of rows does not matter. Time grows with the cube of the rows of one
    /// model.
    pub fn fit(rows: &[Row]) -> Self {
        let mut pooled: BTreeMap<&Key, BTreeMap<(u32, u32, u32), Repeats>> = BTreeMap::new();
        for row in rows {
            let line = pooled.entry(&row.key).or_default();
            line.entry((row.isl, row.osl, row.concurrency)).or_default().push((row.ttft_ms.ln(), row.tpot_ms.ln()));
        }
        let mut words = Words::default();
        let mut model = Self { engines: BTreeMap::new(), families: Vec::new() };
        for (id, (key, points)) in pooled.into_iter().enumerate() {
            let points = points.into_iter().map(|(at, repeats)| Point::pool(at, &repeats)).collect();
            model.add(id, key, points, &mut words);
        }
        for family in &mut model.families {
            family.tpot.solve(&kriging::TPOT);
            family.ttft.solve(&kriging::TTFT);
        }
        model
    }

    fn add(&mut self, id: usize, key: &Key, points: Vec<Point>, words: &mut Words) {
        let measured: Vec<Measured> = points.iter().map(|point| point.measured).collect();
        let law = Law::fit(&measured, key.backend == "trtllm");
        let family = words.number(&key.model, 0);
        if family == self.families.len() {
            self.families.push(Family::default());
        }
        let engine = Engine {
            id,
            system: words.number(&key.system, 1),
            backend: words.number(&key.backend, 2),
            precision: words.number(&key.precision, 3),
            log2_gpus: f64::from(key.gpus).log2(),
        };
        let tpot = |p: &Point| Residual {
            mean: (p.measured.tpot_ms / law.tpot_ms(p.measured.at)).ln(),
            variance: p.tpot_variance,
            repeats: p.repeats,
        };
        let ttft = |p: &Point| Residual {
            mean: (p.measured.ttft_ms / law.ttft_ms(p.measured.at)).ln(),
            variance: p.ttft_variance,
            repeats: p.repeats,
        };
        let corrections = &mut self.families[family];
        corrections.tpot.add(engine, &points, tpot);
        corrections.ttft.add(engine, &points, ttft);
        self.engines.insert(key.clone(), Fitted { law, points, family, engine });
    }

    /// `None` where no point of this engine was measured. Lengths and concurrency below 1 count as 1.
    pub fn predict(&self, key: &Key, isl: u32, osl: u32, concurrency: u32) -> Option<Prediction> {
        let fitted = self.engines.get(key)?;
        let family = &self.families[fitted.family];
        let at = at(isl, osl, concurrency);
        Some(Prediction {
            ttft_ms: fitted.law.ttft_ms(at) * family.ttft.factor(fitted.engine, at, &kriging::TTFT),
            tpot_ms: fitted.law.tpot_ms(at) * family.tpot.factor(fitted.engine, at, &kriging::TPOT),
        })
    }

    /// The measured engines, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.engines.keys()
    }

    /// The smallest and largest concurrency measured for the engine.
    pub fn measured_concurrency(&self, key: &Key) -> Option<(u32, u32)> {
        let levels = || self.engines.get(key).into_iter().flat_map(|fitted| &fitted.points).map(|p| p.concurrency);
        levels().min().zip(levels().max())
    }

    /// How many different concurrency levels were measured.
    pub(super) fn levels(&self, key: &Key) -> usize {
        let Some(fitted) = self.engines.get(key) else { return 0 };
        let mut levels: Vec<u32> = fitted.points.iter().map(|p| p.concurrency).collect();
        levels.sort_unstable();
        levels.dedup();
        levels.len()
    }

    pub(super) fn law(&self, key: &Key) -> Option<&Law> {
        self.engines.get(key).map(|fitted| &fitted.law)
    }

    /// The measured (prompt, answer) lengths that lie nearest the mean of all of the engine's, in logarithms, and how
    /// many different prompt lengths there are.
    pub(super) fn typical_lengths(&self, key: &Key) -> Option<(u32, u32, usize)> {
        let points = &self.engines.get(key)?.points;
        let mean = |of: fn(&Point) -> u32| {
            points.iter().map(|p| f64::from(of(p)).ln()).sum::<f64>() / points.len().max(1) as f64
        };
        let (isl, osl) = (mean(|p| p.isl), mean(|p| p.osl));
        let off = |p: &Point| (f64::from(p.isl).ln() - isl).powi(2) + (f64::from(p.osl).ln() - osl).powi(2);
        let nearest = points.iter().min_by(|a, b| off(a).total_cmp(&off(b)))?;
        let mut prompts: Vec<u32> = points.iter().map(|p| p.isl).collect();
        prompts.sort_unstable();
        prompts.dedup();
        Some((nearest.isl, nearest.osl, prompts.len()))
    }
}

impl Correction {
    fn add(&mut self, engine: Engine, points: &[Point], residual: impl Fn(&Point) -> Residual) {
        self.places.extend(points.iter().map(|point| place(engine, point.measured.at)));
        self.residuals.extend(points.iter().map(residual));
    }

    fn solve(&mut self, scales: &Scales) {
        self.weights = scales.weights(&self.places, &self.residuals);
    }

    fn factor(&self, engine: Engine, at: At, scales: &Scales) -> f64 {
        scales.residual(&place(engine, at), &self.places, &self.weights).exp()
    }
}

/// Numbers words in the order they come, in separate lists.
#[derive(Default)]
struct Words {
    lists: [Vec<String>; 4],
}

impl Words {
    fn number(&mut self, word: &str, list: usize) -> usize {
        let list = &mut self.lists[list];
        list.iter().position(|known| known == word).unwrap_or_else(|| {
            list.push(word.to_owned());
            list.len() - 1
        })
    }
}

fn at(isl: u32, osl: u32, concurrency: u32) -> At {
    At { isl: f64::from(isl.max(1)), osl: f64::from(osl.max(1)), concurrency: f64::from(concurrency.max(1)) }
}

fn place(engine: Engine, at: At) -> Place {
    Place { engine, concurrency: at.concurrency.log2(), isl: at.isl.log2(), osl: at.osl.log2() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(gpus: u32) -> Key {
        Key { model: "m".into(), system: "h100_sxm".into(), gpus, backend: "vllm".into(), precision: "fp8".into() }
    }

    fn synthetic(concurrency: &[u32], truth: impl Fn(f64, f64, f64) -> (f64, f64)) -> Vec<Row> {
        let lengths = [(1024, 128), (1024, 512), (4096, 128), (4096, 512), (2048, 1024)];
        let rows = lengths.into_iter().flat_map(|(isl, osl)| concurrency.iter().map(move |&c| (isl, osl, c)));
        let row = |(isl, osl, c)| {
            let (ttft_ms, tpot_ms) = truth(f64::from(isl), f64::from(osl), f64::from(c));
            Row { key: key(1), isl, osl, concurrency: c, ttft_ms, tpot_ms }
        };
        rows.map(row).collect()
    }

    /// The worst relative errors at unseen levels.
    fn worst(model: &PerfModel, rows: &[Row]) -> (f64, f64) {
        rows.iter().fold((0.0, 0.0), |worst: (f64, f64), row| {
            let p = model.predict(&row.key, row.isl, row.osl, row.concurrency).unwrap();
            (worst.0.max((p.ttft_ms / row.ttft_ms - 1.0).abs()), worst.1.max((p.tpot_ms / row.tpot_ms - 1.0).abs()))
        })
    }

    #[test]
    fn a_curve_made_by_the_law_is_recovered() {
        let truth = |i: f64, o: f64, c: f64| {
            (30.0 + 0.08 * i + 0.002 * c * i, 12.0 + 2e-5 * c * (i + o / 2.0) + 0.04 * c * i / o)
        };
        let model = PerfModel::fit(&synthetic(&[4, 16, 64, 128], truth));
        let (ttft, tpot) = worst(&model, &synthetic(&[8, 32, 96], truth));
        assert!(ttft < 0.01 && tpot < 0.005, "{ttft} {tpot}");
    }

    #[test]
    fn full_memory_makes_the_rest_of_the_clients_wait() {
        // 400,000 tokens of memory; a sequence holds its prompt and half its answer.
        let truth = |i: f64, o: f64, c: f64| {
            let r = c.min(400_000.0 / (i + o / 2.0));
            let tpot = 10.0 + 3e-5 * r * (i + o / 2.0) + 0.02 * r * i / o;
            (40.0 + 0.1 * i + o * tpot * (c / r - 1.0), tpot)
        };
        let model = PerfModel::fit(&synthetic(&[8, 32, 96, 160, 256], truth));
        let (_, tpot) = worst(&model, &synthetic(&[16, 128, 200], truth));
        assert!(tpot < 0.05, "{tpot}");
        let waiting = model.predict(&key(1), 4096, 512, 200).unwrap().ttft_ms;
        let (expected, _) = truth(4096.0, 512.0, 200.0);
        assert!((waiting / expected - 1.0).abs() < 0.15, "{waiting} {expected}");
    }

    #[test]
    fn a_bend_that_the_law_does_not_know_is_learnt_from_neighbours() {
        let bend = |c: f64| 1.0 + 0.15 * (-((c / 32.0).log2().powi(2))).exp();
        let truth = |i: f64, o: f64, c: f64| (50.0 + 0.1 * i, (10.0 + 3e-5 * c * (i + o / 2.0)) * bend(c));
        let all = synthetic(&[4, 8, 16, 32, 64, 128], truth);
        let (test, train): (Vec<Row>, Vec<Row>) =
            all.into_iter().partition(|row| row.concurrency == 32 && row.isl == 1024);
        let (_, tpot) = worst(&PerfModel::fit(&train), &test);
        assert!(tpot < 0.06, "the bend is 15 %, {tpot} of it is missing");
    }

    #[test]
    fn an_unmeasured_engine_has_no_prediction() {
        let model = PerfModel::fit(&synthetic(&[4, 8], |_, _, c| (100.0, c)));
        assert!(model.predict(&key(2), 1024, 128, 8).is_none());
        assert_eq!(model.measured_concurrency(&key(1)), Some((4, 8)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_rows_fit_and_any_point_has_positive_times(
            rows in prop::collection::vec((1..3u32, 1..9000u32, 1..9000u32, 1..300u32, 1e-3..1e6f64, 1e-3..1e5f64), 1..25),
            ask in (any::<u32>(), any::<u32>(), any::<u32>()),
        ) {
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(gpus, isl, osl, concurrency, ttft_ms, tpot_ms)| Row { key: key(gpus), isl, osl, concurrency, ttft_ms, tpot_ms })
                .collect();
            let model = PerfModel::fit(&rows);
            let p = model.predict(&rows[0].key, ask.0, ask.1, ask.2).unwrap();
            prop_assert!(p.ttft_ms > 0.0 && p.ttft_ms.is_finite() && p.tpot_ms > 0.0 && p.tpot_ms.is_finite(), "{p:?}");
            let mut reversed = rows.clone();
            reversed.reverse();
            let q = PerfModel::fit(&reversed).predict(&rows[0].key, 700, 300, 9).unwrap();
            let p = model.predict(&rows[0].key, 700, 300, 9).unwrap();
            prop_assert!((q.tpot_ms / p.tpot_ms - 1.0).abs() < 1e-3, "{p:?} {q:?}");
        }
    }
}
