//! The measured points that ship with Outrigger, and which of them stands in for an engine that was not measured.
//!
//! Standing in is never silent: [`lookup`] says in words what it took for what.

use std::cmp::Reverse;
use std::sync::LazyLock;

use super::curve::Curve;
use super::model::PerfModel;
use super::rows::{Key, Row, read_rows};

/// vLLM's default for `--max-num-seqs` on a serving instance; memory may bound a curve below it.
const MAX_RUNNING: u32 = 256;
/// A model more than this factor larger or smaller tells nothing about the asked one.
const FARTHEST_SIZE: f64 = 3.0;

static BUILTIN: LazyLock<PerfModel> = LazyLock::new(|| PerfModel::fit(&measured_rows()));

/// The model fitted to the built-in table (`data/perf_measured.csv`), on first use.
pub fn builtin() -> &'static PerfModel {
    &BUILTIN
}

pub(super) fn measured_rows() -> Vec<Row> {
    read_rows(include_str!("../../data/perf_measured.csv").as_bytes())
        .expect("the built-in table reads: a test holds it")
}

/// The measured engine nearest to the asked one, its curve, and what stood in for what (empty where nothing did).
/// `None` where no measured model is of similar size and kind.
///
/// `model_name` is a name as on the Hugging Face hub, `gpu` something like `h100` or `NVIDIA H100 80GB HBM3`.
pub fn lookup(model_name: &str, gpu: &str, gpus: u32, engine: &str) -> Option<(Key, Curve, String)> {
    let model = builtin();
    let asked = Asked {
        name: plain(last_part(model_name)),
        kind: Kind::of(model_name),
        size: size_billions(model_name),
        gpu: gpu_family(gpu),
        gpus: gpus.max(1),
        engine: plain(engine).replace("tensorrtllm", "trtllm"),
    };
    let nearest = model.keys().filter_map(|key| Some((Distance::of(&asked, key, model)?, key)));
    let (distance, key) = nearest.min()?;
    let curve = Curve::from_model(model, key, MAX_RUNNING)?;
    let said = said(&distance, key, model_name, gpu, gpus, engine);
    Some((key.clone(), curve, said))
}

struct Asked {
    name: String,
    kind: Kind,
    size: Option<f64>,
    /// `None` for a GPU of which nothing was measured.
    gpu: Option<&'static str>,
    gpus: u32,
    engine: String,
}

/// How far a measured engine is from the asked one: the smallest wins, and the order of fields is the policy.
/// Sizes come first because a model twice as large is twice as slow; engines of one GPU differ by a tenth or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    other_name: bool,
    /// |log2| of the ratio of sizes, in thousandths.
    size: u32,
    other_gpu: bool,
    /// H100 before H200 and B200 where the asked GPU is unknown: the slowest measured one.
    faster_gpu: usize,
    /// Fewer than three concurrency levels.
    few_levels: bool,
    /// |log2| of the ratio of GPU counts, in thousandths.
    gpus: u32,
    other_engine: bool,
    not_vllm: bool,
    /// The engine with more levels, where precision alone is left to choose by.
    levels: Reverse<usize>,
}

impl Distance {
    fn of(asked: &Asked, key: &Key, model: &PerfModel) -> Option<Self> {
        let other_name = plain(last_part(&key.model)) != asked.name;
        let size = match (asked.size, size_billions(&key.model)) {
            _ if !other_name => 0.0,
            (Some(a), Some(b)) if asked.kind == Kind::of(&key.model) => (a / b).log2().abs(),
            _ => return None,
        };
        let levels = model.levels(key);
        let family = gpu_family(&key.system);
        (size <= FARTHEST_SIZE.log2()).then(|| Self {
            other_name,
            size: (size * 1e3) as u32,
            other_gpu: asked.gpu != family,
            faster_gpu: FAMILIES.iter().position(|known| Some(*known) == family).unwrap_or(FAMILIES.len()),
            few_levels: levels < 3,
            gpus: ((f64::from(asked.gpus) / f64::from(key.gpus)).log2().abs() * 1e3) as u32,
            other_engine: asked.engine != key.backend,
            not_vllm: key.backend != "vllm",
            levels: Reverse(levels),
        })
    }
}

fn said(distance: &Distance, key: &Key, model_name: &str, gpu: &str, gpus: u32, engine: &str) -> String {
    let mut parts = Vec::new();
    if distance.other_name {
        parts.push(format!("{} stands in for {model_name}", key.model));
    }
    if distance.other_gpu {
        parts.push(match gpu_family(gpu) {
            Some(_) => format!("{} stands in for {gpu}", key.system),
            None => format!("{} stands in for {gpu}, of which nothing was measured: expect other speeds", key.system),
        });
    }
    if distance.gpus > 0 {
        parts.push(format!("{} GPUs stand in for {gpus}", key.gpus));
    }
    if distance.other_engine {
        parts.push(format!("{} stands in for {engine}", key.backend));
    }
    if distance.few_levels {
        parts.push("fewer than three concurrency levels were measured".to_owned());
    }
    if parts.is_empty() { String::new() } else { format!("measured on {key}: {}", parts.join("; ")) }
}

/// From slow to fast.
const FAMILIES: [&str; 3] = ["h100", "h200", "b200"];

/// A measured GPU family, by the letters in any of a vendor's, cloud's or tool's spellings.
fn gpu_family(name: &str) -> Option<&'static str> {
    let name = plain(name);
    FAMILIES.into_iter().find(|family| name.contains(family))
}

/// Dense models read all weights for each token, mixtures a part: one says nothing about the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dense,
    Mixture,
}

impl Kind {
    fn of(model_name: &str) -> Self {
        let name = last_part(model_name).to_ascii_lowercase();
        let marked = ["gpt-oss", "mixtral", "moe", "deepseek-v", "deepseek-r1", "kimi"];
        let active = name.split('-').any(|part| part.starts_with('a') && size_billions(&part[1..]).is_some());
        if active || marked.iter().any(|mark| name.contains(mark)) && !name.contains("distill") {
            Self::Mixture
        } else {
            Self::Dense
        }
    }
}

/// The number before `B` in a name: 70 for `Llama-3.3-70B-Instruct`, 46.7 is given as 56 for `Mixtral-8x7B`.
fn size_billions(model_name: &str) -> Option<f64> {
    let name = last_part(model_name).to_ascii_lowercase();
    name.split(['-', '_', ':', ' ']).find_map(|part| {
        let number = part.strip_suffix('b')?;
        let product = number.split('x').map(|factor| factor.parse::<f64>().ok()).product::<Option<f64>>()?;
        (0.01..1e5).contains(&product).then_some(product)
    })
}

/// The name without the owner.
fn last_part(model_name: &str) -> &str {
    model_name.rsplit('/').next().unwrap_or(model_name)
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(ask: (&str, &str, u32, &str), expect: (&str, &str, u32, &str), said: &[&str]) {
        let (key, curve, words) = lookup(ask.0, ask.1, ask.2, ask.3).unwrap();
        assert_eq!((key.model.as_str(), key.system.as_str(), key.gpus, key.backend.as_str()), expect, "{words}");
        assert!(curve.slots() > 1);
        assert_eq!(words.is_empty(), said.is_empty(), "{words}");
        for part in said {
            assert!(words.contains(part), "`{words}` lacks `{part}`");
        }
    }

    #[test]
    fn the_built_in_table_reads() {
        assert_eq!(measured_rows().len(), 1_316);
    }

    #[test]
    fn the_nearest_measured_engine_stands_in_and_is_named() {
        check(
            ("meta-llama/Llama-3.3-70B-Instruct", "h100", 4, "vllm"),
            ("meta-llama/Llama-3.1-70B", "h100_sxm", 4, "vllm"),
            &["meta-llama/Llama-3.1-70B stands in for meta-llama/Llama-3.3-70B-Instruct"],
        );
        check(("openai/gpt-oss-120b", "H200", 2, "vllm"), ("openai/gpt-oss-120b", "h200_sxm", 2, "vllm"), &[]);
        check(
            ("Qwen/Qwen3-32B", "NVIDIA H100 80GB HBM3", 3, "sglang"),
            ("Qwen/Qwen3-32B", "h100_sxm", 4, "sglang"),
            &["4 GPUs stand in for 3"],
        );
        check(
            ("mistralai/Mistral-7B-Instruct-v0.3", "l40s", 1, "vllm"),
            ("meta-llama/Llama-3.1-8B-Instruct", "h100_sxm", 1, "trtllm"),
            &["stands in for l40s, of which nothing was measured", "trtllm stands in for vllm"],
        );
    }

    #[test]
    fn nothing_stands_in_for_a_model_of_another_kind_or_size() {
        for name in ["meta-llama/Llama-3.1-405B", "Qwen/Qwen3-0.6B", "gpt-5", "", "Mistral-Large-Instruct-2407"] {
            assert!(lookup(name, "h100", 8, "vllm").is_none(), "{name}");
        }
    }

    #[test]
    fn sizes_and_kinds_are_read_from_names() {
        let sizes = ["x/Llama-3.3-70B-Instruct", "Mixtral-8x7B", "gemma-2-2b-it", "Qwen3-30B-A3B", "gpt-4o"];
        assert_eq!(sizes.map(size_billions), [Some(70.0), Some(56.0), Some(2.0), Some(30.0), None]);
        assert_eq!(Kind::of("Qwen/Qwen3-30B-A3B"), Kind::Mixture);
        assert_eq!(Kind::of("deepseek-ai/DeepSeek-R1-Distill-Llama-70B"), Kind::Dense);
    }

    proptest! {
        #[test]
        fn any_words_are_answered(model in ".{0,40}", gpu in ".{0,20}", gpus: u32, engine in ".{0,12}") {
            let _ = lookup(&model, &gpu, gpus, &engine);
        }
    }
}
