//! The law of one engine: time per output token and time to first token, from terms that mean something.
//!
//! With `r` sequences running, prompts of `i` tokens and answers of `o` tokens, in milliseconds:
//!
//! ```text
//! TPOT = a0 + a1·√r + a2·r + a3·r·(i + o/2) + a4·r·i/o + a5·i/o
//! TTFT = b0 + b1·i + b2·r·i + b3·r + b4·√r + b5·o·TPOT/r + o·TPOT·(c/r − 1)
//! r    = min(c, memory / tokens held by one sequence)
//! ```
//!
//! - `a0`: one pass over the weights. `a1`: experts that a growing batch wakes, fewer new ones each time (mixtures of
//!   experts). `a2`: work per sequence. `a3`: the KV cache read for every token; a sequence holds `i + o/2` on average.
//! - `a4`: prefill that interrupts decoding. In a closed loop each sequence lets in one prompt per `o` tokens, so
//!   `r·i/o` prompt tokens are computed per step (interference as in DistServe, arXiv 2401.09670).
//! - `b1`: the own prompt. `b2`, `b3`: prompts and steps of others that it waits for. `b4`: arrivals bunch, and the size
//!   of a bunch varies as √r.
//! - `b5`: one client in `r` waits for a whole answer. The TensorRT-LLM rows of the 8B model show it clearly
//!   (`b5` ≈ 1: the engine ran one sequence fewer than there were clients).
//! - the last term of TTFT is Little's law: where only `r` of `c` clients run, a cycle takes `c/r` answers.
//! - TensorRT-LLM sets memory for the whole answer aside at admission (its default capacity scheduler policy,
//!   `GUARANTEED_NO_EVICT`); vLLM and SGLang page it in as the answer grows.
//!
//! Coefficients are least squares of relative errors with none below zero (Lawson & Hanson 1974, ch. 23), reweighted so
//! that a wild point pulls with its size and not with its square (Huber 1964). Memory is found by trying sizes.

/// A point as the law sees it, as floats because every use multiplies them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct At {
    pub isl: f64,
    pub osl: f64,
    pub concurrency: f64,
}

/// A measured point; points measured more than once are one `Measured`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub at: At,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    /// KV tokens that fit; infinite where the measurements never filled it.
    memory_tokens: f64,
    /// Share of the answer that a sequence holds on average while it runs.
    answer_share: f64,
    tpot: [f64; TERMS],
    ttft: [f64; TERMS],
}

const TERMS: usize = 6;
/// Steps of the search for the memory size: an eighth of a doubling, about 9 %.
const STEPS_PER_DOUBLING: f64 = 8.0;
/// Below this no engine answers; it keeps logarithms of a prediction finite.
const FLOOR_MS: f64 = 1e-3;

impl Law {
    pub(super) fn fit(points: &[Measured], reserves_whole_answer: bool) -> Self {
        let answer_share = if reserves_whole_answer { 1.0 } else { 0.5 };
        let held = |at: &At| at.isl + answer_share * at.osl;
        let demand = points.iter().map(|p| p.at.concurrency * held(&p.at)).fold(0.0, f64::max);
        let smallest = points.iter().map(|p| held(&p.at)).fold(1.0, f64::max);
        // A finite memory explains more by having one knob more, so it must explain clearly more.
        let unbounded = Self::with_memory(points, f64::INFINITY, answer_share);
        let mut best = (unbounded.misfit(points) * 0.9, unbounded);
        let mut step = (smallest.log2() * STEPS_PER_DOUBLING).ceil();
        while 2f64.powf(step / STEPS_PER_DOUBLING) < demand {
            let law = Self::with_memory(points, 2f64.powf(step / STEPS_PER_DOUBLING), answer_share);
            let misfit = law.misfit(points);
            if misfit < best.0 {
                best = (misfit, law);
            }
            step += 1.0;
        }
        best.1
    }

    fn with_memory(points: &[Measured], memory_tokens: f64, answer_share: f64) -> Self {
        let mut law = Self { memory_tokens, answer_share, tpot: [0.0; TERMS], ttft: [0.0; TERMS] };
        let tpot: Vec<Sample> =
            points.iter().map(|p| Sample { terms: law.tpot_terms(p.at), known: 0.0, measured: p.tpot_ms }).collect();
        law.tpot = fit_terms(&tpot, 0.01);
        let ttft: Vec<Sample> = points
            .iter()
            .map(|p| Sample { terms: law.ttft_terms(p.at), known: law.waiting_ms(p.at), measured: p.ttft_ms })
            .collect();
        law.ttft = fit_terms(&ttft, 0.05);
        law
    }

    /// TPOT errors count three times: they are an order smaller, and it is TPOT that shows when memory is full.
    /// Both are capped, so that one wild point does not choose the memory size.
    fn misfit(&self, points: &[Measured]) -> f64 {
        let one = |p: &Measured| {
            let tpot = (self.tpot_ms(p.at) / p.tpot_ms - 1.0).abs().min(0.5);
            let ttft = (self.ttft_ms(p.at) / p.ttft_ms).ln().abs().min(3.0);
            3.0 * tpot + ttft
        };
        points.iter().map(one).sum::<f64>() / points.len().max(1) as f64
    }

    /// Sequences that fit in memory at these lengths; infinite where memory never filled.
    pub(super) fn fits(&self, isl: f64, osl: f64) -> f64 {
        (self.memory_tokens / (isl + self.answer_share * osl)).max(1.0)
    }

    pub(super) fn tpot_ms(&self, at: At) -> f64 {
        dot(&self.tpot, &self.tpot_terms(at)).max(FLOOR_MS)
    }

    /// In the closed loop, waiting for a place included.
    pub(super) fn ttft_ms(&self, at: At) -> f64 {
        (dot(&self.ttft, &self.ttft_terms(at)) + self.waiting_ms(at)).max(FLOOR_MS)
    }

    /// From admission to the first token with `running` sequences, as (fixed part, part per prompt token).
    pub(super) fn prefill_ms(&self, running: f64) -> (f64, f64) {
        let b = &self.ttft;
        (b[0] + b[3] * running + b[4] * running.sqrt(), b[1] + b[2] * running)
    }

    fn running(&self, at: At) -> f64 {
        at.concurrency.min(self.fits(at.isl, at.osl))
    }

    fn waiting_ms(&self, at: At) -> f64 {
        at.osl * self.tpot_ms(at) * (at.concurrency / self.running(at) - 1.0)
    }

    fn tpot_terms(&self, at: At) -> [f64; TERMS] {
        let r = self.running(at);
        [1.0, r.sqrt(), r, r * (at.isl + at.osl / 2.0), r * at.isl / at.osl, at.isl / at.osl]
    }

    fn ttft_terms(&self, at: At) -> [f64; TERMS] {
        let r = self.running(at);
        [1.0, at.isl, r * at.isl, r, r.sqrt(), at.osl * self.tpot_ms(at) / r]
    }
}

/// One equation of a fit: Σ coefficient·term + known ≈ measured.
struct Sample {
    terms: [f64; TERMS],
    known: f64,
    measured: f64,
}

/// Four rounds of reweighting; the fourth moves coefficients by less than the noise.
/// `least_scale` is the relative error that is never called wild.
fn fit_terms(samples: &[Sample], least_scale: f64) -> [f64; TERMS] {
    let mut weights = vec![1.0; samples.len()];
    let mut coefficients = [0.0; TERMS];
    for _ in 0..4 {
        coefficients = non_negative_least_squares(samples, &weights);
        let errors: Vec<f64> =
            samples.iter().map(|s| ((dot(&coefficients, &s.terms) + s.known) / s.measured - 1.0).abs()).collect();
        let scale = (1.5 * median(errors.clone())).max(least_scale);
        weights = errors.iter().map(|error| 1.0 / (error / scale).max(1.0)).collect();
    }
    coefficients
}

/// The active-set method of Lawson & Hanson on the normal equations: terms enter one at a time where they help most,
/// and leave when a later one drives them below zero. Columns are scaled to one, as their units differ by 1e6.
fn non_negative_least_squares(samples: &[Sample], weights: &[f64]) -> [f64; TERMS] {
    let (gram, right, scale) = normal_equations(samples, weights);
    let mut x = [0.0; TERMS];
    let mut used = [false; TERMS];
    // Every round adds a term; a term that left may come back, so rounds are bounded rather than proven finite.
    for _ in 0..4 * TERMS {
        let gain = |j: usize| right[j] - dot(&gram[j], &x);
        let candidate = (0..TERMS).filter(|&j| !used[j] && gain(j) > 1e-9).max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
        let Some(entering) = candidate else { break };
        used[entering] = true;
        while let Some(wanted) = solve_used(&gram, &right, used) {
            let step = (0..TERMS)
                .filter(|&j| used[j] && wanted[j] <= 0.0)
                .map(|j| x[j] / (x[j] - wanted[j]))
                .fold(1.0, f64::min);
            for j in 0..TERMS {
                x[j] += step * (wanted[j] - x[j]);
            }
            if step >= 1.0 {
                break;
            }
            for j in 0..TERMS {
                if used[j] && x[j] <= 1e-12 {
                    (used[j], x[j]) = (false, 0.0);
                }
            }
        }
    }
    std::array::from_fn(|j| x[j].max(0.0) / scale[j])
}

type Matrix = [[f64; TERMS]; TERMS];

/// Gram matrix, right-hand side and column norms of the weighted relative equations.
fn normal_equations(samples: &[Sample], weights: &[f64]) -> (Matrix, [f64; TERMS], [f64; TERMS]) {
    let mut gram = [[0.0; TERMS]; TERMS];
    let mut right = [0.0; TERMS];
    for (sample, weight) in samples.iter().zip(weights) {
        let terms = sample.terms.map(|t| t / sample.measured);
        let target = (sample.measured - sample.known).max(0.0) / sample.measured;
        for j in 0..TERMS {
            right[j] += weight * terms[j] * target;
            for k in 0..TERMS {
                gram[j][k] += weight * terms[j] * terms[k];
            }
        }
    }
    let scale: [f64; TERMS] = std::array::from_fn(|j| gram[j][j].sqrt().max(f64::MIN_POSITIVE));
    for j in 0..TERMS {
        right[j] /= scale[j];
        for k in 0..TERMS {
            gram[j][k] /= scale[j] * scale[k];
        }
    }
    (gram, right, scale)
}

/// Least squares over the used terms, zero elsewhere. `None` where no term is used.
fn solve_used(gram: &Matrix, right: &[f64; TERMS], used: [bool; TERMS]) -> Option<[f64; TERMS]> {
    let terms: Vec<usize> = (0..TERMS).filter(|&j| used[j]).collect();
    if terms.is_empty() {
        return None;
    }
    let mut matrix: Vec<f64> = terms.iter().flat_map(|&j| terms.iter().map(move |&k| gram[j][k])).collect();
    for j in 0..terms.len() {
        // Two columns may be the same up to a factor, as where one prompt length was measured.
        matrix[j * terms.len() + j] += 1e-10;
    }
    super::kriging::factor(&mut matrix, terms.len());
    let mut solution: Vec<f64> = terms.iter().map(|&j| right[j]).collect();
    super::kriging::solve(&matrix, &mut solution);
    let mut wanted = [0.0; TERMS];
    for (&j, value) in terms.iter().zip(&solution) {
        wanted[j] = *value;
    }
    Some(wanted)
}

fn dot(a: &[f64; TERMS], b: &[f64; TERMS]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
