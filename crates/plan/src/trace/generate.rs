//! Arrivals made up from statistics: a curve of rates, and tables of how long prompts and answers are.
//!
//! For services that publish no trace but such figures (ServeGen, arXiv 2505.09999), and for "the same week with half
//! as much again". Arrivals are a Poisson process whose rate is that of the window they fall into; lengths come from
//! the tables by inverse transform, prompt and answer independently. The same seed gives the same arrivals on every
//! machine: only comparisons and the four operations are used, not the platform's logarithm.

use std::{array, io::BufRead, iter::FusedIterator, slice, time::Duration};

use outrigger_core::{
    Rng,
    units::{Nanos, Tokens},
};
use rand_core::{Rng as _, SeedableRng as _};

use super::{
    Arrival,
    csv::{Header, Wanted},
    fault::TraceFault,
    lines::{Ends, Lines},
    number::{MOST_TOKENS, SECONDS},
    row::{Field, request},
};

/// Years of minutes.
const MOST_WINDOWS: usize = 2_000_000;
const MOST_QUANTILES: usize = 100_000;
/// Requests per second; a thousand million leave a nanosecond for each.
const MOST_RATE: f64 = 1e9;

/// Requests per second over time, constant within each window.
#[derive(Clone, Debug, PartialEq)]
pub struct RateCurve {
    /// Without gaps, the first at 0.
    windows: Vec<Stretch>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    start: u64,
    end: u64,
    per_s: f64,
}

impl Stretch {
    fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1e9
    }
}

impl RateCurve {
    /// One rate from 0 to `length`.
    pub fn constant(per_s: f64, length: Duration) -> Self {
        let end = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { windows: vec![Stretch { start: 0, end, per_s: sane(per_s) }] }
    }

    /// From CSV: `window_start_s`, and the rate in the column of that name. A window ends where the next one starts;
    /// the last is as long as the one before it.
    pub fn from_csv(input: impl BufRead, rate_column: &str) -> Result<Self, TraceFault> {
        let mut starts: Vec<(u64, f64)> = Vec::new();
        let rows = read_table(input, ["window_start_s", rate_column], MOST_WINDOWS, |row, [start, rate]| {
            let at = start.nanos(row, SECONDS)?.cast_unsigned();
            let per_s = rate.real(row)?;
            if per_s > MOST_RATE {
                return Err(fault(row, rate, "this rate is too large", "rates are requests per second"));
            }
            if starts.last().is_some_and(|(before, _)| *before >= at) {
                return Err(fault(
                    row,
                    start,
                    "this window does not start after the one before it",
                    "sort the windows",
                ));
            }
            starts.push((at, per_s));
            Ok(())
        })?;
        let [.., (before, _), (last, _)] = starts[..] else {
            let help = "give two windows at least: the second tells how long the first is";
            return Err(TraceFault::new(rows, "fewer than two windows", help));
        };
        let zero = starts[0].0;
        let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([last.saturating_add(last - before)]);
        let stretch =
            |(&(start, per_s), end): (&(u64, f64), u64)| Stretch { start: start - zero, end: end - zero, per_s };
        Ok(Self { windows: starts.iter().zip(ends).map(stretch).collect() })
    }

    /// All rates times `factor`; a factor that is negative or not a number counts as 0.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for window in &mut self.windows {
            window.per_s = sane(window.per_s * factor);
        }
        self
    }

    /// The curve as a region sees it whose day begins `by` later. What goes over the end comes back at the beginning,
    /// so that shifted curves cover the same time.
    #[must_use]
    pub fn shifted(self, by: Duration) -> Self {
        let length = self.length().0;
        let by = (by.as_nanos() % u128::from(length.max(1))) as u64;
        if by == 0 {
            return self;
        }
        let cut = length - by;
        let before = self.windows.iter().filter(|window| window.end > cut).map(|window| Stretch {
            start: window.start.max(cut) - cut,
            end: window.end - cut,
            per_s: window.per_s,
        });
        let after = self.windows.iter().filter(|window| window.start < cut).map(|window| Stretch {
            start: window.start + by,
            end: window.end.min(cut) + by,
            per_s: window.per_s,
        });
        Self { windows: before.chain(after).collect() }
    }

    /// The curve up to `length`.
    #[must_use]
    pub fn first(mut self, length: Duration) -> Self {
        let end = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        self.windows.retain(|window| window.start < end);
        if let Some(last) = self.windows.last_mut() {
            last.end = last.end.min(end);
        }
        self
    }

    pub fn length(&self) -> Nanos {
        Nanos(self.windows.last().map_or(0, |window| window.end))
    }

    /// Each window's length in nanoseconds with its rate.
    pub fn windows(&self) -> impl Iterator<Item = (u64, f64)> {
        self.windows.iter().map(|window| (window.end - window.start, window.per_s))
    }

    /// How many requests to expect in all.
    pub fn requests(&self) -> f64 {
        self.windows.iter().map(|window| window.seconds() * window.per_s).sum()
    }
}

fn sane(per_s: f64) -> f64 {
    if per_s.is_nan() { 0.0 } else { per_s.clamp(0.0, MOST_RATE) }
}

/// How long prompts and answers are, as quantiles.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    prompt: Quantile,
    output: Quantile,
}

/// Points of a quantile function, rising in both: (share of requests, tokens).
#[derive(Clone, Debug, Default, PartialEq)]
struct Quantile(Vec<(f64, f64)>);

impl Quantiles {
    /// Every request the same.
    pub fn constant(prompt: Tokens, output: Tokens) -> Self {
        let one = |tokens: Tokens| Quantile(vec![(0.0, tokens.0.min(MOST_TOKENS) as f64)]);
        Self { prompt: one(prompt), output: one(output) }
    }

    /// From CSV: `quantile`, rising from 0 to 1, and tokens in the columns of these names. Between two rows it is
    /// interpolated; before the first and after the last it is theirs.
    pub fn from_csv(input: impl BufRead, prompt_column: &str, output_column: &str) -> Result<Self, TraceFault> {
        let mut quantiles = Self { prompt: Quantile::default(), output: Quantile::default() };
        let rows = read_table(
            input,
            ["quantile", prompt_column, output_column],
            MOST_QUANTILES,
            |row, [quantile, prompt, output]| {
                let share = quantile.real(row)?;
                if share > 1.0 {
                    return Err(fault(row, quantile, "this quantile is above 1", "quantiles go from 0 to 1"));
                }
                quantiles.prompt.push(row, quantile, share, prompt)?;
                quantiles.output.push(row, quantile, share, output)
            },
        )?;
        if quantiles.prompt.0.is_empty() {
            return Err(TraceFault::new(rows, "the table has no quantiles", "give two rows at least, for 0 and 1"));
        }
        Ok(quantiles)
    }
}

impl Quantile {
    fn push(&mut self, row: u64, quantile: Field<'_>, share: f64, tokens: Field<'_>) -> Result<(), TraceFault> {
        let value = tokens.real(row)?;
        if value > MOST_TOKENS as f64 {
            return Err(fault(row, tokens, "this is too large", "quantiles of lengths are in tokens"));
        }
        if let Some((last_share, last_value)) = self.0.last() {
            if share <= *last_share {
                return Err(fault(row, quantile, "this quantile is not above the one before it", "sort the rows"));
            }
            if value < *last_value {
                return Err(fault(row, tokens, "this is less than at the quantile before it", "quantiles rise"));
            }
        }
        self.0.push((share, value));
        Ok(())
    }

    fn at(&self, share: f64) -> Tokens {
        let after = self.0.partition_point(|(known, _)| *known <= share);
        let value = match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some((from, low)), Some((to, high))) => low + (high - low) * (share - from) / (to - from),
            (Some((_, only)), None) | (None, Some((_, only))) => *only,
            (None, None) => 0.0,
        };
        Tokens(value.round() as u64)
    }
}

/// Arrivals at these rates with these lengths: the same ones for the same seed. `model` is put on each of them.
pub fn generate(rate: RateCurve, tokens: Quantiles, seed: u64, model: Option<u16>) -> Generated {
    Generated { rate, tokens, model, rng: Rng::seed_from_u64(seed), window: 0, passed_s: 0.0 }
}

/// See [`generate`].
#[derive(Clone, Debug)]
pub struct Generated {
    rate: RateCurve,
    tokens: Quantiles,
    model: Option<u16>,
    rng: Rng,
    window: usize,
    /// Seconds since the start of the window.
    passed_s: f64,
}

impl Iterator for Generated {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        // How many requests are to be expected until the next one: what a window cannot use up goes over to the next.
        let mut expected = exponential(&mut self.rng);
        loop {
            let window = self.rate.windows.get(self.window)?;
            let left = (window.seconds() - self.passed_s).max(0.0) * window.per_s;
            if expected < left {
                self.passed_s += expected / window.per_s;
                let at = window.start.saturating_add((self.passed_s * 1e9) as u64).min(window.end);
                let prompt = self.tokens.prompt.at(uniform(&mut self.rng));
                let output = self.tokens.output.at(uniform(&mut self.rng));
                return Some(Arrival { at: Nanos(at), model: self.model, ..request(prompt, output) });
            }
            expected -= left;
            self.window += 1;
            self.passed_s = 0.0;
        }
    }
}

impl FusedIterator for Generated {}

/// From 0 to just under 1, in steps of 2⁻⁵³.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// With mean 1, by von Neumann's comparisons of uniform numbers ("Various techniques used in connection with random
/// digits", 1951): a falling run that starts at `x` has odd length with probability e⁻ˣ.
fn exponential(rng: &mut Rng) -> f64 {
    let mut whole = 0.0;
    loop {
        let first = uniform(rng);
        let (mut last, mut odd) = (first, true);
        loop {
            let next = uniform(rng);
            if next >= last {
                break;
            }
            (last, odd) = (next, !odd);
        }
        if odd {
            return whole + first;
        }
        whole += 1.0;
    }
}

/// Hands each row's fields in these columns to `take`; gives back the number of the last row.
fn read_table<const N: usize>(
    input: impl BufRead,
    columns: [&str; N],
    most: usize,
    mut take: impl FnMut(u64, [Field<'_>; N]) -> Result<(), TraceFault>,
) -> Result<u64, TraceFault> {
    let mut lines = Lines::new(input);
    let Some(first) = lines.next(Ends::OutsideQuotes)? else {
        return Err(TraceFault::new(1, "the table is empty", "its first row names the columns"));
    };
    let mut last = first.row;
    let wanted = array::from_fn(|slot| Wanted::required(slice::from_ref(&columns[slot])));
    let header: Header<N> = Header::parse(first, &wanted)?;
    let mut count = 0;
    while let Some(line) = lines.next(Ends::OutsideQuotes)? {
        last = line.row;
        count += 1;
        if count > most {
            return Err(TraceFault::new(last, format!("the table has more than {most} rows"), "is it the right file?"));
        }
        let texts = header.split(line)?;
        take(line.row, array::from_fn(|slot| Field { column: header.name(slot), text: texts[slot] }))?;
    }
    Ok(last)
}

fn fault(row: u64, field: Field<'_>, message: &str, help: &str) -> TraceFault {
    TraceFault::new(row, message, help).in_column(field.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: &str = include_str!("../../../../examples/traces/servegen-rate-10min.csv");
    const LENGTHS: &str = include_str!("../../../../examples/traces/servegen-token-quantiles.csv");

    fn rates() -> RateCurve {
        RateCurve::from_csv(RATES.as_bytes(), "language_m_mid_rps").unwrap()
    }

    fn lengths() -> Quantiles {
        let (prompt, output) = ("language_m_mid_prompt_tokens", "language_m_mid_output_tokens");
        Quantiles::from_csv(LENGTHS.as_bytes(), prompt, output).unwrap()
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_hours(hours)
    }

    #[test]
    fn a_generated_trace_has_the_rate_of_its_curve() {
        let curve = rates().first(hours(24)).scaled(0.004);
        let expect = curve.requests();
        let mut by_hour = [0.0; 24];
        for arrival in generate(curve.clone(), lengths(), 7, Some(3)) {
            by_hour[(arrival.at.0 / 3_600_000_000_000) as usize] += 1.0;
        }
        let all: f64 = by_hour.iter().sum();
        assert!(expect > 300_000.0, "{expect}");
        assert!((all / expect - 1.0).abs() < 0.01, "{all} of {expect}");
        for (hour, count) in by_hour.iter().enumerate() {
            let end = curve.clone().first(hours(hour as u64 + 1)).requests();
            let expect = end - curve.clone().first(hours(hour as u64)).requests();
            assert!((count - expect).abs() < 5.0 * expect.sqrt(), "hour {hour}: {count} of {expect}");
        }
    }

    #[test]
    fn gaps_are_exponential() {
        let mut rng = Rng::seed_from_u64(3);
        let gaps: Vec<f64> = (0..200_000).map(|_| exponential(&mut rng)).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| gap * gap).sum::<f64>() / gaps.len() as f64;
        let beyond_three = gaps.iter().filter(|gap| **gap > 3.0).count() as f64 / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((square - 2.0).abs() < 0.04, "{square}");
        assert!((beyond_three - 0.049_787).abs() < 0.002, "{beyond_three}");
    }

    #[test]
    fn a_generated_trace_has_the_lengths_of_its_table() {
        let curve = RateCurve::constant(1000.0, Duration::from_mins(5));
        let mut prompts: Vec<u64> =
            generate(curve, lengths(), 1, None).map(|arrival| arrival.prompt_tokens.0).collect();
        prompts.sort_unstable();
        let table = lengths().prompt;
        for percent in [5, 10, 25, 50, 75, 90, 95] {
            let share = f64::from(percent) / 100.0;
            let got = prompts[(prompts.len() as f64 * share) as usize] as f64;
            // Within the sampling error of the share, 0.3 % at 300,000 samples.
            let (low, high) = (table.at(share - 0.003).0 as f64, table.at(share + 0.003).0 as f64);
            assert!((low - 1.0..=high + 1.0).contains(&got), "{percent} %: {got} not in {low}..{high}");
        }
    }

    #[test]
    fn a_seed_decides_all() {
        let some = |seed| -> Vec<Arrival> { generate(rates(), lengths(), seed, None).take(1000).collect() };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        // Other figures here would make every recorded simulation another one.
        let first: Vec<_> = some(42).iter().take(3).map(|a| (a.at.0, a.prompt_tokens.0, a.output_tokens.0)).collect();
        assert_eq!(first, EXPECTED_42);
    }

    const EXPECTED_42: [(u64, u64, u64); 3] = [(1_724_301, 191, 11), (3_305_078, 221, 6), (3_713_641, 142, 5)];

    #[test]
    fn arrivals_are_in_order_also_across_windows_without_requests() {
        let csv = "window_start_s,r\n100,5\n110,0\n120,5\n130,0.001\n140,5\n";
        let curve = RateCurve::from_csv(csv.as_bytes(), "r").unwrap();
        assert_eq!(curve.length(), Nanos::from_secs(50));
        assert!((curve.requests() - 150.01).abs() < 1e-9);
        let times: Vec<u64> =
            generate(curve, Quantiles::constant(Tokens(1), Tokens(1)), 9, None).map(|a| a.at.0).collect();
        assert!(times.is_sorted());
        assert!(times.iter().all(|at| !(10_000_000_000..20_000_000_000).contains(at)));
        assert!(times.last().is_some_and(|at| *at > 40_000_000_000));
    }

    #[test]
    fn a_shifted_curve_goes_round() {
        let csv = "window_start_s,r\n0,1\n10,2\n20,3\n";
        let curve = RateCurve::from_csv(csv.as_bytes(), "r").unwrap();
        let seconds = |curve: &RateCurve| -> Vec<_> {
            curve.windows.iter().map(|w| (w.start / 1_000_000_000, w.end / 1_000_000_000, w.per_s)).collect()
        };
        let shifted = curve.clone().shifted(Duration::from_secs(15));
        assert_eq!(seconds(&shifted), [(0, 5, 2.0), (5, 15, 3.0), (15, 25, 1.0), (25, 30, 2.0)]);
        assert_eq!(curve.clone().shifted(Duration::from_mins(1)), curve);
        assert_eq!(curve.clone().shifted(Duration::from_secs(70)), curve.clone().shifted(Duration::from_secs(10)));
        let week = rates();
        assert!((week.clone().shifted(hours(8)).requests() / week.requests() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_factor_that_is_no_number_gives_no_requests() {
        let none = |curve: RateCurve| generate(curve, lengths(), 1, None).next().is_none();
        assert!(none(rates().scaled(f64::NAN)));
        assert!(none(rates().scaled(-1.0)));
        assert!(none(RateCurve::constant(0.0, hours(1))));
        assert!(none(RateCurve::constant(1.0, Duration::ZERO)));
        assert!(none(rates().first(Duration::ZERO).shifted(hours(1))));
    }

    #[test]
    fn quantiles_are_interpolated() {
        let table = Quantiles::from_csv(&b"quantile,p,o\n0.1,10,1\n0.5,30,1\n0.9,31,5\n"[..], "p", "o").unwrap();
        let check = |share, expect| assert_eq!(table.prompt.at(share), Tokens(expect), "{share}");
        check(0.0, 10);
        check(0.1, 10);
        check(0.3, 20);
        check(0.5, 30);
        check(0.95, 31);
    }

    #[test]
    fn faults_of_tables() {
        let rates = |text: &str| RateCurve::from_csv(text.as_bytes(), "r").unwrap_err().to_string();
        let check = |got: String, expect: &str| assert_eq!(got, expect);
        check(rates(""), "row 1: the table is empty");
        check(rates("window_start_s,q\n"), "row 1: the header has no column r");
        check(rates("window_start_s,r\n0,1\n"), "row 2: fewer than two windows");
        check(
            rates("window_start_s,r\n0,1\n0,1\n"),
            "row 3, column window_start_s: this window does not start after the one before it",
        );
        check(rates("window_start_s,r\n0,-1\n"), "row 2, column r: \"-1\" is negative");
        check(rates("window_start_s,r\n0,1e12\n"), "row 2, column r: this rate is too large");
        check(rates("window_start_s,r\n0,1\n10,nan\n"), "row 3, column r: \"nan\" is not a finite number");
        let lengths = |text: &str| Quantiles::from_csv(text.as_bytes(), "p", "o").unwrap_err().to_string();
        check(lengths("quantile,p,o\n"), "row 1: the table has no quantiles");
        check(lengths("quantile,p,o\n0,1,1\n1.5,2,2\n"), "row 3, column quantile: this quantile is above 1");
        check(
            lengths("quantile,p,o\n0.5,1,1\n0.5,2,2\n"),
            "row 3, column quantile: this quantile is not above the one before it",
        );
        check(lengths("quantile,p,o\n0,1,5\n1,2,2\n"), "row 3, column o: this is less than at the quantile before it");
    }
}
