//! What the law leaves over, as a smooth function: Gaussian process regression (kriging).
//!
//! The residual ln(measured / law) at one point is correlated with that at another the closer the two lie in
//! log concurrency, log prompt length and log answer length, and the more their engines have in common. Three layers
//! add up: one shared by all engines of a model, one per engine, and one per (engine, prompt, answer) line. The
//! prediction is the mean of the process given the measured residuals (Rasmussen & Williams 2006, algorithm 2.1); the
//! correlations are Matérn 3/2 and 1/2 (eq. 4.17, 4.18 with ν = 3/2, 1/2).
//!
//! Scales are constants: they were chosen once by random search over several ways of leaving levels out of the
//! built-in table, minimising the median and the 75th and 90th percentile of relative errors. A search at fit time
//! would have a prediction change with every added row for no reason a reader could name.

/// How residuals of one quantity hang together. Lengths are in doublings of concurrency or tokens; amplitudes are
/// natural logarithms, so 0.1 is about 10 %.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales {
    shared: Layer,
    engine: Layer,
    /// The line's own wiggle along concurrency, and its length.
    line: f64,
    line_length: f64,
    /// The line's own constant offset.
    line_offset: f64,
    /// Repeat measurements of a point differ by about this much.
    noise: f64,
    /// Factors on the shared layer for a pair of engines that differ in one thing.
    other_system: f64,
    other_backend: f64,
    other_precision: f64,
    /// Doublings of the GPU count over which the shared layer fades to 1/e.
    gpus_length: f64,
}

/// A layer fades with the distance in each of the three lengths.
#[derive(Clone, Copy, Debug)]
struct Layer {
    amplitude: f64,
    concurrency: f64,
    isl: f64,
    osl: f64,
}

pub(super) const TPOT: Scales = Scales {
    shared: Layer { amplitude: 0.078, concurrency: 2.9, isl: 10.0, osl: 4.5 },
    engine: Layer { amplitude: 0.02, concurrency: 2.5, isl: 9.0, osl: 2.5 },
    line: 0.05,
    line_length: 1.2,
    line_offset: 0.012,
    noise: 0.02,
    other_system: 1.0,
    other_backend: 0.75,
    other_precision: 0.53,
    gpus_length: 3.9,
};

pub(super) const TTFT: Scales = Scales {
    shared: Layer { amplitude: 0.2, concurrency: 2.5, isl: 7.2, osl: 3.0 },
    engine: Layer { amplitude: 0.3, concurrency: 2.0, isl: 1.15, osl: 2.2 },
    line: 0.1,
    line_length: 1.35,
    line_offset: 0.55,
    noise: 0.036,
    other_system: 0.15,
    other_backend: 0.3,
    other_precision: 0.5,
    gpus_length: 0.45,
};

/// What of an engine decides how much it has in common with another. Words are numbered, as they are compared often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub id: usize,
    pub system: usize,
    pub backend: usize,
    pub precision: usize,
    pub log2_gpus: f64,
}

/// A place of the process: an engine and three lengths in doublings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub engine: Engine,
    pub concurrency: f64,
    pub isl: f64,
    pub osl: f64,
}

/// ln(measured / law) at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Residual {
    pub mean: f64,
    /// Among repeats, beyond ordinary noise: some points were measured under settings that the table does not name,
    /// and these say little about their neighbours.
    pub variance: f64,
    /// How many measurements this is the mean of.
    pub repeats: f64,
}

impl Scales {
    fn covariance(&self, a: &Place, b: &Place) -> f64 {
        let (level, isl, osl) = ((a.concurrency - b.concurrency).abs(), (a.isl - b.isl).abs(), (a.osl - b.osl).abs());
        let along = matern_3_2(level / self.shared.concurrency);
        let mut sum = self.kinship(&a.engine, &b.engine) * self.shared.at(along, isl, osl);
        if a.engine.id == b.engine.id {
            sum += self.engine.at((-level / self.engine.concurrency).exp(), isl, osl);
            if isl <= 0.0 && osl <= 0.0 {
                sum += self.line.powi(2) * matern_3_2(level / self.line_length) + self.line_offset.powi(2);
            }
        }
        sum
    }

    fn kinship(&self, a: &Engine, b: &Engine) -> f64 {
        let factor = |differ: bool, factor: f64| if differ { factor } else { 1.0 };
        factor(a.system != b.system, self.other_system)
            * factor(a.backend != b.backend, self.other_backend)
            * factor(a.precision != b.precision, self.other_precision)
            * (-(a.log2_gpus - b.log2_gpus).abs() / self.gpus_length).exp()
    }

    /// What to multiply covariances by so that their sum is the expected residual: (K + noise)⁻¹ · residuals.
    pub(super) fn weights(&self, places: &[Place], residuals: &[Residual]) -> Vec<f64> {
        let n = places.len();
        let mut matrix = vec![0.0; n * n];
        for row in 0..n {
            for column in 0..=row {
                matrix[row * n + column] = self.covariance(&places[row], &places[column]);
            }
            matrix[row * n + row] += (self.noise.powi(2) + residuals[row].variance) / residuals[row].repeats;
        }
        factor(&mut matrix, n);
        let mut weights: Vec<f64> = residuals.iter().map(|residual| residual.mean).collect();
        solve(&matrix, &mut weights);
        weights
    }

    /// The expected residual at a place.
    pub(super) fn residual(&self, at: &Place, places: &[Place], weights: &[f64]) -> f64 {
        places.iter().zip(weights).map(|(place, weight)| weight * self.covariance(at, place)).sum()
    }
}

impl Layer {
    fn at(&self, along_concurrency: f64, isl: f64, osl: f64) -> f64 {
        self.amplitude.powi(2) * along_concurrency * matern_3_2(isl / self.isl) * matern_3_2(osl / self.osl)
    }
}

fn matern_3_2(distance: f64) -> f64 {
    let scaled = 3f64.sqrt() * distance;
    (1.0 + scaled) * (-scaled).exp()
}

/// Cholesky factor in the lower triangle, in place, of a symmetric positive definite matrix stored by rows.
/// A pivot that rounding drove to zero or below is lifted: the system then answers zero along that direction.
pub(super) fn factor(matrix: &mut [f64], n: usize) {
    for row in 0..n {
        let (above, rest) = matrix.split_at_mut(row * n);
        let current = &mut rest[..n];
        for column in 0..row {
            let other = &above[column * n..=column * n + column];
            let sum: f64 = current[..column].iter().zip(other).map(|(a, b)| a * b).sum();
            current[column] = (current[column] - sum) / other[column];
        }
        let sum: f64 = current[..row].iter().map(|a| a * a).sum();
        current[row] = (current[row] - sum).max(1e-12).sqrt();
    }
}

/// Solves with the factor, in place.
pub(super) fn solve(factor: &[f64], right: &mut [f64]) {
    let n = right.len();
    for row in 0..n {
        let sum: f64 = factor[row * n..row * n + row].iter().zip(&*right).map(|(a, b)| a * b).sum();
        right[row] = (right[row] - sum) / factor[row * n + row];
    }
    for row in (0..n).rev() {
        right[row] /= factor[row * n + row];
        let value = right[row];
        for column in 0..row {
            right[column] -= factor[row * n + column] * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factored_system_is_solved() {
        let original = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let mut matrix = original.to_vec();
        factor(&mut matrix, 3);
        let mut x = vec![1.0, -2.0, 0.5];
        solve(&matrix, &mut x);
        for (row, expected) in [1.0, -2.0, 0.5].into_iter().enumerate() {
            let got: f64 = (0..3).map(|k| original[row * 3 + k] * x[k]).sum();
            assert!((got - expected).abs() < 1e-12);
        }
    }
}
