//! An engine as the simulator steps it: tables indexed by how many sequences run.
//!
//! The simulator queues requests itself, so a curve holds nothing of the closed loop's waiting: a first token is timed
//! from admission into the running set.

use super::law::At;
use super::model::PerfModel;
use super::rows::Key;

/// More slots than any engine's default allows at once; it bounds the tables.
const MOST_SLOTS: u32 = 4_096;

/// Speeds by the number of running sequences. Reading is a table lookup.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// `steps[n - 1]` holds for `n` running sequences. Never empty.
    steps: Box<[Step]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    per_token: f64,
    /// First token: fixed part, and part per prompt token.
    first: f64,
    first_per_prompt_token: f64,
}

impl Curve {
    /// `max_running` is the engine's own limit (`--max-num-seqs` of vLLM); memory may allow fewer.
    /// Lengths are the typical measured ones of the engine. `None` where the engine was not measured.
    pub fn from_model(model: &PerfModel, key: &Key, max_running: u32) -> Option<Self> {
        let law = model.law(key)?;
        let (isl, osl, prompt_lengths) = model.typical_lengths(key)?;
        let fits = law.fits(f64::from(isl), f64::from(osl));
        let slots = (f64::from(max_running.clamp(1, MOST_SLOTS)).min(fits) as u32).max(1);
        // From a handful of points the law may see waiting only. Then prefill is the time to first token under the
        // largest measured load, where the wait of the one client in `r` weighs least.
        let (quietest, busiest) = model.measured_concurrency(key)?;
        let unexplained = model.predict(key, isl, osl, busiest.min(slots))?.ttft_ms / f64::from(isl);
        let mut slowest = 0.0_f64;
        let step = |running: u32| {
            // Below the smallest measured load the law may split TPOT wrongly between the weights and the batch: some
            // engines were measured under load only. The smallest measured load stands for less.
            let level = running.max(quietest);
            let predicted = model.predict(key, isl, osl, level)?;
            // More company never makes a token faster; where noise says so, the simulator would be drawn to it.
            slowest = slowest.max(predicted.tpot_ms);
            let (fixed, per_prompt_token) = law.prefill_ms(f64::from(running));
            // The correction is the law's; far from the measurements it is bounded rather than believed.
            let at = At { isl: f64::from(isl), osl: f64::from(osl), concurrency: f64::from(level) };
            let factor = (predicted.ttft_ms / law.ttft_ms(at)).clamp(0.5, 2.0);
            let (fixed, per_prompt_token) = match prompt_lengths {
                _ if fixed + per_prompt_token <= 0.0 => (0.0, unexplained),
                // One prompt length cannot tell the two parts apart; prefill work is what grows.
                1 => (0.0, per_prompt_token + fixed / f64::from(isl)),
                _ => (fixed, per_prompt_token),
            };
            Some(Step {
                per_token: slowest / 1e3,
                first: factor * fixed / 1e3,
                first_per_prompt_token: factor * per_prompt_token / 1e3,
            })
        };
        let steps = (1..=slots).map(step).collect::<Option<Box<[Step]>>>()?;
        Some(Self { steps })
    }

    /// Every sequence gets `tokens_per_second`, however many run; prompts cost nothing beyond one token's time.
    /// This is the engine of queueing theory (M/M/c), where answers can be checked on paper.
    pub fn constant(slots: u32, tokens_per_second: f64) -> Self {
        let per_token = 1.0 / tokens_per_second.max(1e-9);
        let step = Step { per_token, first: per_token, first_per_prompt_token: 0.0 };
        Self { steps: vec![step; slots.clamp(1, 1_000_000) as usize].into() }
    }

    /// How many sequences run at once at most; at least 1.
    pub fn slots(&self) -> u32 {
        self.steps.len() as u32
    }

    /// Time for each running sequence's next token. `running` outside 1..=slots counts as the nearest.
    pub fn seconds_per_token(&self, running: u32) -> f64 {
        self.step(running).per_token
    }

    /// From admission into the running set to the first token, with `running` sequences, this one included.
    pub fn first_token_seconds(&self, running: u32, prompt_tokens: u64) -> f64 {
        let step = self.step(running);
        step.first + step.first_per_prompt_token * prompt_tokens as f64
    }

    fn step(&self, running: u32) -> &Step {
        let index = (running.max(1) as usize - 1).min(self.steps.len() - 1);
        &self.steps[index]
    }
}
