//! One team's own numbers, resolved: names looked up, units parsed, prices from the book or the file.

use outrigger_core::{fleet::TokenPrice, price::EgressTier, units::NanoUsd};

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    /// Where applications, data and the gateway stand.
    pub home: Home,
    pub demand: Demand,
    pub model: Model,
    pub slo: Slo,
    /// Where GPUs may be rented, in the order of the file.
    pub clouds: Vec<Candidate>,
    pub hosted: Vec<HostedOffer>,
    /// Of pattern 2: what the first of the two clouds gets, in percent.
    pub split_percent: u32,
    pub today: Today,
    pub flows: Vec<Flow>,
    pub weights: Option<Weights>,
    pub interconnect: Option<Interconnect>,
    pub people: People,
    pub migration: Migration,
    pub commitments: Vec<Commitment>,
    pub constraints: Constraints,
    /// What on-demand and token prices may be off, in percent.
    pub price_uncertainty: u32,
    /// What the load may be off, in percent.
    pub load_uncertainty: u32,
    /// Months over which a migration has to pay for itself.
    pub horizon_months: u32,
}

#[derive(Clone, Debug)]
pub struct Home {
    pub cloud: String,
    pub egress: Vec<EgressTier>,
    /// Whether everything may be moved to another cloud.
    pub may_move: bool,
}

/// A time during which requests come at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub seconds: u64,
    /// Millionths of a request per second.
    pub micro_rps: u64,
}

/// What is asked for, over a time that stands for a month.
#[derive(Clone, Debug)]
pub struct Demand {
    /// At least one; some rate is above zero.
    pub levels: Vec<Level>,
    /// Mean tokens of a prompt, in thousandths.
    pub prompt_milli: u64,
    /// Mean tokens of an answer, in thousandths.
    pub output_milli: u64,
    /// Standard deviation of answers' lengths over their mean.
    pub output_cv: f64,
    /// The same of the times between arrivals: 1 for Poisson.
    pub arrival_cv: f64,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub profiles: Vec<Profile>,
}

/// How fast one replica is on `gpus` of a kind of GPU.
#[derive(Clone, Debug)]
pub struct Profile {
    pub gpu: String,
    pub gpus: u32,
    /// By rising concurrency; at least one.
    pub points: Vec<Point>,
}

/// Measured with so many requests at once.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub concurrency: u32,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

/// What 95 of 100 requests stay under.
#[derive(Clone, Copy, Debug)]
pub struct Slo {
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

/// A cloud where GPUs may be rented.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub cloud: String,
    pub gpu: String,
    /// Index into `model.profiles`.
    pub profile: usize,
    pub instance_gpus: u32,
    pub min_gpus: u32,
    /// One instance, on demand.
    pub usd_per_hour: NanoUsd,
    /// Where the price is from: the file, or a row of the book.
    pub source: String,
    /// Empty for a price from the file.
    pub as_of: String,
    /// One GPU, reserved; without it no base is reserved here.
    pub reserved_usd_per_gpu_hour: Option<NanoUsd>,
    pub term_months: u32,
    pub cold_start_s: u64,
    pub egress: Vec<EgressTier>,
    /// What a reader should know, such as that only single GPUs have a known price.
    pub gaps: Vec<String>,
}

/// A model served by somebody else, by the token.
#[derive(Clone, Debug)]
pub struct HostedOffer {
    pub name: String,
    pub price: TokenPrice,
    pub source: String,
    pub as_of: String,
}

#[derive(Clone, Debug, Default)]
pub struct Today {
    /// Beside what is committed.
    pub pools: Vec<TodayPool>,
    /// Index into `hosted`, where all of the demand goes to it today.
    pub hosted: Option<usize>,
    pub other: Vec<OtherCost>,
    /// By kind of cost; empty without a bill.
    pub invoice: super::Invoice,
}

#[derive(Clone, Debug)]
pub struct TodayPool {
    pub cloud: String,
    pub gpus: u32,
    pub usd_per_gpu_hour: NanoUsd,
    pub source: String,
    pub egress: Vec<EgressTier>,
}

/// What stays as it is in every option.
#[derive(Clone, Debug)]
pub struct OtherCost {
    pub name: String,
    pub usd_per_month: NanoUsd,
}

/// Where an edge starts or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Home,
    Gpus,
    Internet,
}

/// Bytes that go the same way every month.
#[derive(Clone, Debug)]
pub struct Flow {
    pub name: String,
    pub from: End,
    pub to: End,
    pub bytes: u64,
    /// What is different among them, where that is known: a replica needs only these.
    pub unique_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub bytes: u64,
    /// Cold starts of a month over the fleet, each of which reads all of them.
    pub pulls: u64,
    /// New versions in a month.
    pub releases: u64,
    pub usd_per_gb_month: NanoUsd,
}

/// A private line out of home.
#[derive(Clone, Copy, Debug)]
pub struct Interconnect {
    pub usd_per_month: NanoUsd,
    pub usd_per_gb: NanoUsd,
}

/// People, each month, by what has to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct People {
    pub today: NanoUsd,
    pub single: NanoUsd,
    pub hosted: NanoUsd,
    pub pattern1: NanoUsd,
    pub pattern2: NanoUsd,
    pub pattern3: NanoUsd,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Migration {
    pub usd: NanoUsd,
    /// How long the old GPUs are paid beside the new ones.
    pub overlap_s: u64,
}

/// GPUs that are paid until a day, whether used or not.
#[derive(Clone, Debug)]
pub struct Commitment {
    pub cloud: String,
    pub gpus: u32,
    pub usd_per_gpu_hour: NanoUsd,
    /// Days left, counted from the day of the plan.
    pub days_left: u32,
}

#[derive(Clone, Debug)]
pub struct Constraints {
    /// Where GPUs may stand; anywhere without it.
    pub only_clouds: Option<Vec<String>>,
    pub data_gravity_tb: f64,
    /// From here on data keeps the GPUs beside it.
    pub data_gravity_limit_tb: f64,
    pub cold_start_limit_s: Option<u64>,
    pub platform_team: bool,
    /// For the search over the book: the share of the load that has to survive the loss of any provider, in percent.
    pub survive_percent: u32,
}
