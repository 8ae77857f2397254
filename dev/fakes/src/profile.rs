//! How fast a simulated engine is, and what it calls itself.
//!
//! A profile is data (a built-in name or a JSON file), so that a new engine or GPU is a new set of numbers. The simplest
//! ones describe a continuous-batching server as a line: a decode step costs a base plus a little for each running
//! sequence, and prompts are read beside decoding at a constant rate. That is the smallest model in which a busier
//! engine answers slower, which is what routing has to notice. To reproduce a measured machine takes three things more,
//! each absent unless a profile states it: a table in place of the line, the cost of the KV that a step reads, and
//! prefill in chunks that share the step with decoding and make it longer for everybody.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The model that the self-hosted built-ins serve.
pub const LLAMA_70B: &str = "meta-llama/Llama-3.3-70B-Instruct";

/// The model that was measured; its sizes are those of `LLAMA_70B`.
const LLAMA_31_70B: &str = "meta-llama/Llama-3.1-70B";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Vllm,
    /// A hosted API: no `/metrics`, no `/health`.
    Openai,
}

/// A service time that is simply stated: for tests that need a request of 2 s or 30 s and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    pub ttft_ms: f64,
    pub tokens: u32,
    /// From admission to the end of the answer. A request with a smaller `max_tokens` ends proportionally earlier.
    pub total_ms: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    pub name: String,
    pub engine: EngineKind,
    pub model: String,
    /// Prompt tokens read per second by the whole engine, in arrival order. 0 = a prompt takes no time. With
    /// `chunk_tokens` it is the rate at which a step grows with its prompt tokens.
    pub prefill_tokens_per_second: f64,
    /// Constant time before prefill starts: tokenizing and scheduling, and the network of a hosted API.
    pub overhead_ms: f64,
    /// Time of one output token at an idle engine. 0 = no time.
    pub decode_base_ms: f64,
    /// What each running sequence adds to that time.
    pub decode_per_running_ms: f64,
    /// In place of that line: (running sequences, time), with straight lines through the points and beyond the outer
    /// ones. Empty: the line.
    pub decode_table_ms: Vec<(usize, f64)>,
    /// What each 1,000 tokens of KV held by decoding sequences (prompt, and output so far) add to a step.
    pub decode_per_kv_ktoken_ms: f64,
    /// Chunked prefill: a step carries at most so many prompt tokens, in arrival order, and lasts longer by what they
    /// take; sequences still in prefill then do not count as running in the step's time. None: prompts are read beside
    /// decoding and slow nobody down.
    pub chunk_tokens: Option<u64>,
    pub max_running: usize,
    /// KV-cache capacity. A sequence takes its prompt and its whole output at admission, so nothing is ever preempted.
    pub kv_tokens: u64,
    /// Waiting requests beyond which the answer is 503, as with vLLM's `--max-num-queued-reqs`. None: no limit.
    pub max_queue: Option<usize>,
    pub max_model_len: u64,
    /// Output length of a request that names none.
    pub default_output_tokens: u32,
    /// Demanded as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// Relative spread of a decode step: 0.1 = each step takes 90–110 % of its time.
    pub jitter: f64,
    pub fixed: Option<Fixed>,
}

impl Default for Profile {
    fn default() -> Self {
        Self::instant()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("no profile named {0:?} (built in: {names}) and no such file", names = Profile::NAMES.join(", "))]
    Unknown(String),
    #[error("cannot read profile {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("profile {path}: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("profile {path}: {what}")]
    Range { path: PathBuf, what: &'static str },
}

impl Profile {
    pub const NAMES: [&'static str; 6] =
        ["coreweave-h100", "lambda-h100", "h100x4-llama-70b", "h100x8-llama-70b", "hosted", "instant"];

    /// A built-in by name, else a JSON file. Keys that a file leaves out are those of `instant`.
    pub fn load(name_or_path: &str) -> Result<Self, ProfileError> {
        if let Some(profile) = Self::built_in(name_or_path) {
            return Ok(profile);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            return Err(ProfileError::Unknown(name_or_path.into()));
        }
        let text = std::fs::read_to_string(path).map_err(|source| ProfileError::Read { path: path.into(), source })?;
        let profile: Self =
            serde_json::from_str(&text).map_err(|source| ProfileError::Parse { path: path.into(), source })?;
        match profile.out_of_range() {
            Some(what) => Err(ProfileError::Range { path: path.into(), what }),
            None => Ok(profile),
        }
    }

    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "coreweave-h100" => Some(Self::coreweave_h100()),
            "lambda-h100" => Some(Self::lambda_h100()),
            "h100x4-llama-70b" => Some(Self::h100x4_llama_70b()),
            "h100x8-llama-70b" => Some(Self::h100x8_llama_70b()),
            "hosted" => Some(Self::hosted()),
            "instant" => Some(Self::instant()),
            _ => None,
        }
    }

    /// Llama-3.x-70B FP8 on 4 H100 under vLLM. Measured (AIConfigurator's published runs of 2025-10-29, 1024 in, 1024
    /// out): time per output token 11.8, 13.2 and 19.5 ms at 4, 16 and 64 running; the line 11.4 + 0.127 n gives 11.9,
    /// 13.4 and 19.5. Time to first token 80 and 121 ms at 4 and 16 running for 1k, 453 and 732 ms for 8k: the slope is
    /// 18,000 tokens a second, and 45 ms before it gives 110 and 510. KV: 320 GB · 0.9 less 70 GB of weights and 30 GB
    /// of activations, at 327,680 bytes a token.
    pub fn coreweave_h100() -> Self {
        Self {
            name: "coreweave-h100".into(),
            engine: EngineKind::Vllm,
            model: LLAMA_70B.into(),
            prefill_tokens_per_second: 18_000.0,
            overhead_ms: 45.0,
            decode_base_ms: 11.4,
            decode_per_running_ms: 0.127,
            decode_table_ms: Vec::new(),
            decode_per_kv_ktoken_ms: 0.0,
            chunk_tokens: None,
            max_running: 256,
            kv_tokens: 570_000,
            max_queue: None,
            max_model_len: 131_072,
            default_output_tokens: 128,
            api_key: None,
            jitter: 0.05,
            fixed: None,
        }
    }

    /// The same machine a tenth slower, so that the two clouds of a demo can be told apart.
    pub fn lambda_h100() -> Self {
        Self {
            name: "lambda-h100".into(),
            prefill_tokens_per_second: 16_200.0,
            overhead_ms: 50.0,
            decode_base_ms: 12.6,
            decode_per_running_ms: 0.14,
            ..Self::coreweave_h100()
        }
    }

    /// Llama-3.1-70B FP8 on 4 H100 SXM under vLLM, fitted to the nine rows of `dev/fakes/data/llama_70b_h100_vllm.csv`
    /// (4, 16 and 64 clients; 1024/1024, 1024/8192 and 8192/1024 tokens): every time per output token within 10 % and
    /// every time to first token within 20 %, which the test `calibration` checks. KV as in `coreweave_h100`, but with
    /// the 590,000 tokens that 64 requests of 9,216 must have held.
    pub fn h100x4_llama_70b() -> Self {
        Self {
            name: "h100x4-llama-70b".into(),
            model: LLAMA_31_70B.into(),
            prefill_tokens_per_second: 28_500.0,
            overhead_ms: 1.0,
            decode_table_ms: vec![(4, 11.12), (16, 11.51), (64, 12.91)],
            decode_per_kv_ktoken_ms: 0.0365,
            chunk_tokens: Some(1_024),
            kv_tokens: 650_000,
            jitter: 0.02,
            ..Self::coreweave_h100()
        }
    }

    /// The same on 8 H100: the other nine rows.
    pub fn h100x8_llama_70b() -> Self {
        Self {
            name: "h100x8-llama-70b".into(),
            prefill_tokens_per_second: 42_000.0,
            overhead_ms: 9.0,
            decode_table_ms: vec![(4, 9.02), (16, 10.53), (64, 12.05)],
            decode_per_kv_ktoken_ms: 0.0157,
            kv_tokens: 1_500_000,
            ..Self::h100x4_llama_70b()
        }
    }

    pub fn hosted() -> Self {
        Self {
            name: "hosted".into(),
            engine: EngineKind::Openai,
            model: "gpt-4o-mini".into(),
            prefill_tokens_per_second: 400_000.0,
            overhead_ms: 340.0,
            decode_base_ms: 11.0,
            decode_per_running_ms: 0.0,
            max_running: 20_000,
            kv_tokens: u64::MAX,
            max_model_len: 128_000,
            jitter: 0.2,
            ..Self::coreweave_h100()
        }
    }

    /// No latency and no limit: what is measured against it is the gateway.
    pub fn instant() -> Self {
        Self {
            name: "instant".into(),
            prefill_tokens_per_second: 0.0,
            overhead_ms: 0.0,
            decode_base_ms: 0.0,
            decode_per_running_ms: 0.0,
            max_running: usize::MAX,
            kv_tokens: u64::MAX,
            default_output_tokens: 16,
            jitter: 0.0,
            ..Self::coreweave_h100()
        }
    }

    /// The time of one step of `running` sequences that hold `kv_tokens` and read `prompt_tokens`, before jitter and
    /// faults.
    pub(crate) fn step(&self, running: usize, kv_tokens: u64, prompt_tokens: f64) -> Duration {
        let decode = self.decode_ms(running);
        let kv = self.decode_per_kv_ktoken_ms * kv_tokens as f64 / 1e3;
        let prompt = match self.prefill_tokens_per_second {
            rate if rate > 0.0 => prompt_tokens / rate * 1e3,
            _ => 0.0,
        };
        Duration::from_secs_f64((decode + kv + prompt) / 1e3)
    }

    fn decode_ms(&self, running: usize) -> f64 {
        let running_f = running as f64;
        let line = self.decode_base_ms + self.decode_per_running_ms * running_f;
        // The outermost pair serves what lies outside it.
        let pair = self.decode_table_ms.windows(2).find(|pair| running <= pair[1].0);
        match (pair.or(self.decode_table_ms.windows(2).next_back()), self.decode_table_ms.first()) {
            (Some(&[(from, low), (to, high)]), _) => {
                (low + (high - low) * (running_f - from as f64) / (to - from) as f64).max(0.0)
            }
            (_, Some((_, only))) => *only,
            _ => line,
        }
    }

    fn out_of_range(&self) -> Option<&'static str> {
        let times = [
            self.prefill_tokens_per_second,
            self.overhead_ms,
            self.decode_base_ms,
            self.decode_per_running_ms,
            self.decode_per_kv_ktoken_ms,
            self.fixed.map_or(0.0, |f| f.ttft_ms),
            self.fixed.map_or(0.0, |f| f.total_ms - f.ttft_ms),
        ];
        if times.iter().any(|t| !(0.0..1e9).contains(t)) {
            return Some("times and rates must be 0 or more, and fixed.total_ms not below fixed.ttft_ms");
        }
        let table = &self.decode_table_ms;
        if table.iter().any(|(_, ms)| !(0.0..1e9).contains(ms)) || table.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Some("decode_table_ms must be of times of 0 or more, by rising numbers of running sequences");
        }
        if self.chunk_tokens == Some(0) {
            return Some("chunk_tokens must be above 0");
        }
        if self.max_running == 0 || self.default_output_tokens == 0 || self.fixed.is_some_and(|f| f.tokens == 0) {
            return Some("max_running, default_output_tokens and fixed.tokens must be above 0");
        }
        (!(0.0..1.0).contains(&self.jitter)).then_some("jitter must be in 0..1")
    }
}
