//! How far off the model is on points it has not seen, beside the obvious other way.

use std::collections::BTreeMap;

use super::model::PerfModel;
use super::rows::{Key, Row};

/// Errors over the test rows, each |predicted / measured − 1|.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Test rows, all of which count.
    pub rows: usize,
    /// Of these, rows of an engine that the training rows do not hold: no prediction, counted as an error of 1.
    pub unpredicted: usize,
    pub tpot: Quantiles,
    pub ttft: Quantiles,
    /// Straight lines in concurrency between the measured levels of the same engine and lengths, the mean where a
    /// level was measured more than once; beyond the outer levels, the outer level.
    pub baseline: RelativeErrors,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelativeErrors {
    pub tpot: Quantiles,
    pub ttft: Quantiles,
    /// Rows without a training row of the same engine and lengths, counted as an error of 1.
    pub unpredicted: usize,
}

/// Of relative errors: 0.02 is 2 %. NaN where there was no row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    pub median: f64,
    pub p90: f64,
}

/// Fits on `train` and predicts `test`.
pub fn evaluate(train: &[Row], test: &[Row]) -> Evaluation {
    let model = PerfModel::fit(train);
    let lines = Lines::of(train);
    let ours = errors(test, |row| {
        let prediction = model.predict(&row.key, row.isl, row.osl, row.concurrency)?;
        Some((prediction.ttft_ms, prediction.tpot_ms))
    });
    let baseline = errors(test, |row| lines.predict(row));
    Evaluation { rows: test.len(), unpredicted: ours.unpredicted, tpot: ours.tpot, ttft: ours.ttft, baseline }
}

fn errors(test: &[Row], predict: impl Fn(&Row) -> Option<(f64, f64)>) -> RelativeErrors {
    let (mut ttft, mut tpot, mut unpredicted) = (Vec::new(), Vec::new(), 0);
    for row in test {
        let Some(predicted) = predict(row) else {
            unpredicted += 1;
            ttft.push(1.0);
            tpot.push(1.0);
            continue;
        };
        ttft.push((predicted.0 / row.ttft_ms - 1.0).abs());
        tpot.push((predicted.1 / row.tpot_ms - 1.0).abs());
    }
    RelativeErrors { tpot: Quantiles::of(tpot), ttft: Quantiles::of(ttft), unpredicted }
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: quantile(&values, 0.5), p90: quantile(&values, 0.9) }
    }
}

/// Between the two nearest ranks in a straight line, as numpy does.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let rank = share * (sorted.len() - 1) as f64;
    let below = rank as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (rank - below as f64) * (sorted[above] - sorted[below])
}

/// The baseline: an engine and its lengths map to the measured levels.
struct Lines<'a> {
    lines: BTreeMap<(&'a Key, u32, u32), BTreeMap<u32, Sums>>,
}

/// Of TTFT and TPOT at one level, and how many rows they are.
type Sums = (f64, f64, f64);

impl<'a> Lines<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let mut lines: BTreeMap<_, BTreeMap<u32, Sums>> = BTreeMap::new();
        for row in rows {
            let line = lines.entry((&row.key, row.isl, row.osl)).or_default();
            let level = line.entry(row.concurrency).or_default();
            *level = (level.0 + row.ttft_ms, level.1 + row.tpot_ms, level.2 + 1.0);
        }
        Self { lines }
    }

    fn predict(&self, row: &Row) -> Option<(f64, f64)> {
        let line = self.lines.get(&(&row.key, row.isl, row.osl))?;
        let mean = |(level, sums): (&u32, &Sums)| (f64::from(*level), sums.0 / sums.2, sums.1 / sums.2);
        let below = line.range(..=row.concurrency).next_back().map(mean);
        let above = line.range(row.concurrency..).next().map(mean);
        let (low, high) = (below.or(above)?, above.or(below)?);
        let share = if high.0 > low.0 { (f64::from(row.concurrency) - low.0) / (high.0 - low.0) } else { 0.0 };
        Some((low.1 + share * (high.1 - low.1), low.2 + share * (high.2 - low.2)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::builtin::measured_rows;
    use super::*;

    type Line<'a> = (&'a Key, u32, u32);

    /// Holds out the levels that `choose` picks from the interior levels of each line.
    fn split(rows: &[Row], choose: impl Fn(&[u32], usize) -> Vec<u32>) -> (Vec<Row>, Vec<Row>) {
        let mut levels: BTreeMap<Line, Vec<u32>> = BTreeMap::new();
        for row in rows {
            levels.entry((&row.key, row.isl, row.osl)).or_default().push(row.concurrency);
        }
        for (number, levels) in levels.values_mut().enumerate() {
            levels.sort_unstable();
            levels.dedup();
            let interior = levels.get(1..levels.len().saturating_sub(1)).unwrap_or_default();
            *levels = choose(interior, number);
        }
        rows.iter().cloned().partition(|row| !levels[&(&row.key, row.isl, row.osl)].contains(&row.concurrency))
    }

    fn percent(errors: Quantiles) -> String {
        format!("{:.2}/{:.1}", 100.0 * errors.median, 100.0 * errors.p90)
    }

    fn line(name: &str, e: &Evaluation) -> String {
        let (tpot, ttft) = (percent(e.baseline.tpot), percent(e.baseline.ttft));
        format!(
            "{name:<28} {:>4} rows | TPOT {} | TTFT {} | lines TPOT {tpot} TTFT {ttft}",
            e.rows,
            percent(e.tpot),
            percent(e.ttft)
        )
    }

    /// A stand-in for a random draw that needs no generator: the golden ratio walks evenly through the choices.
    fn drawn(number: usize, round: usize) -> f64 {
        ((number + 1) as f64 * 0.618_033_988_75 + round as f64 * 0.414_213_562_37).fract()
    }

    fn one_of(interior: &[u32], number: usize, round: usize) -> Vec<u32> {
        interior.get((drawn(number, round) * interior.len() as f64) as usize).copied().into_iter().collect()
    }

    #[test]
    #[ignore = "prints the table of figures: cargo test -p outrigger-plan --release figures -- --ignored --nocapture"]
    #[expect(clippy::disallowed_macros, reason = "printing is what this one is for")]
    fn figures() {
        let rows = measured_rows();
        let fixed =
            |level: u32| move |interior: &[u32], _: usize| interior.iter().copied().filter(|c| *c == level).collect();
        let alternate =
            |from: usize| move |interior: &[u32], _: usize| interior.iter().copied().skip(from).step_by(2).collect();
        let report = |name: &str, (train, test): (Vec<Row>, Vec<Row>)| {
            println!("{}", line(name, &evaluate(&train, &test)));
        };
        report("every second interior, 1st", split(&rows, alternate(0)));
        report("every second interior, 2nd", split(&rows, alternate(1)));
        report("level 16", split(&rows, fixed(16)));
        report("level 32", split(&rows, fixed(32)));
        report("level 64", split(&rows, fixed(64)));
        for round in 0..4 {
            report(&format!("one interior per line #{round}"), split(&rows, |interior, n| one_of(interior, n, round)));
        }
        for round in 0..3 {
            let fifth = |interior: &[u32], n: usize| {
                interior.iter().copied().filter(|c| drawn(n, round + *c as usize) < 0.2).collect()
            };
            report(&format!("20 % of interior levels #{round}"), split(&rows, fifth));
        }
        let rest: Vec<Row> =
            rows.iter().filter(|r| !(r.key.model.contains("8B") && r.key.backend == "trtllm")).cloned().collect();
        report("without 8B/trtllm: 2nd, 1st", split(&rest, alternate(0)));
        report("without 8B/trtllm: 2nd, 2nd", split(&rest, alternate(1)));
        report("without 8B/trtllm: one", split(&rest, |interior, n| one_of(interior, n, 0)));
        println!("{}", leave_one_out(&rows));
    }

    /// Every interior level of every line once, each with everything else known.
    fn leave_one_out(rows: &[Row]) -> String {
        let mut levels: BTreeMap<Line, BTreeSet<u32>> = BTreeMap::new();
        for row in rows {
            levels.entry((&row.key, row.isl, row.osl)).or_default().insert(row.concurrency);
        }
        let (mut ours, mut lines) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for ((key, isl, osl), levels) in &levels {
            for level in levels.iter().skip(1).take(levels.len().saturating_sub(2)) {
                let held = |r: &Row| r.key == **key && r.isl == *isl && r.osl == *osl && r.concurrency == *level;
                let family = rows.iter().filter(|r| r.key.model == key.model).cloned();
                let (test, train): (Vec<Row>, Vec<Row>) = family.partition(held);
                let model = PerfModel::fit(&train);
                let straight = Lines::of(&train);
                for row in &test {
                    let p = model.predict(key, *isl, *osl, *level).unwrap();
                    let (ttft, tpot) = straight.predict(row).unwrap();
                    ours[0].push((p.tpot_ms / row.tpot_ms - 1.0).abs());
                    ours[1].push((p.ttft_ms / row.ttft_ms - 1.0).abs());
                    lines[0].push((tpot / row.tpot_ms - 1.0).abs());
                    lines[1].push((ttft / row.ttft_ms - 1.0).abs());
                }
            }
        }
        let ([a, b], [c, d]) = (ours, lines);
        let [a, b, c, d] = [a, b, c, d].map(|e| percent(Quantiles::of(e)));
        format!("leave one interior level out: TPOT {a} | TTFT {b} | lines TPOT {c} TTFT {d}")
    }

    /// `most` in percent: TPOT median and p90, TTFT median and p90. Each also beats straight lines.
    fn check(name: &str, (train, test): (Vec<Row>, Vec<Row>), most: [f64; 4]) {
        let e = evaluate(&train, &test);
        let got = [e.tpot.median, e.tpot.p90, e.ttft.median, e.ttft.p90];
        let base = [e.baseline.tpot.median, e.baseline.tpot.p90, e.baseline.ttft.median, e.baseline.ttft.p90];
        assert_eq!((e.unpredicted, e.baseline.unpredicted), (0, 0));
        for i in 0..4 {
            assert!(100.0 * got[i] <= most[i] && got[i] < base[i], "{}", line(name, &e));
        }
    }

    #[test]
    fn unseen_levels_are_predicted() {
        let rows = measured_rows();
        let second = split(&rows, |interior, _| interior.iter().copied().step_by(2).collect());
        check("every second interior level", second, [1.6, 6.6, 5.8, 26.0]);
        let fifth =
            split(&rows, |interior, n| interior.iter().copied().filter(|c| drawn(n, *c as usize) < 0.2).collect());
        check("20 % of interior levels", fifth, [1.4, 6.0, 5.0, 21.0]);
    }

    #[test]
    fn shuffled_labels_are_not_predicted() {
        let (mut train, test) = split(&measured_rows(), |interior, n| one_of(interior, n, 0));
        let labels: Vec<(f64, f64)> = train.iter().map(|row| (row.ttft_ms, row.tpot_ms)).collect();
        for (i, row) in train.iter_mut().enumerate() {
            (row.ttft_ms, row.tpot_ms) = labels[(i * 577 + 101) % labels.len()];
        }
        let e = evaluate(&train, &test);
        assert!(e.tpot.median > 0.2 && e.ttft.median > 0.4, "{}", line("shuffled", &e));
    }

    #[test]
    fn a_row_of_an_unknown_engine_counts_as_wrong() {
        let rows = measured_rows();
        let (train, test): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.key.gpus != 2);
        let e = evaluate(&train, &test);
        assert_eq!(e.unpredicted, e.rows);
        assert!((e.tpot.median - 1.0).abs() < 1e-12);
    }

    #[test]
    fn quantiles_interpolate() {
        let q = Quantiles::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert!((q.median - 2.5).abs() < 1e-12 && (q.p90 - 3.7).abs() < 1e-12);
        assert!(Quantiles::of(Vec::new()).median.is_nan());
    }
}
