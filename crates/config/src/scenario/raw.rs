//! The scenario as it is written. As with the fleet file, these types are its only description: the schema that the
//! structural check walks is made from them, and so are the words of its faults.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, de::IgnoredAny};

use crate::raw::{Date, Duration, List, Named};

/// What one team serves, pays and may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Outrigger scenario")]
pub(crate) struct Scenario {
    /// The version of this file's format.
    #[schemars(required, schema_with = "version")]
    #[expect(dead_code, reason = "there is one version, and the schema holds the file to it")]
    pub(crate) version: Option<IgnoredAny>,
    /// What the plan is called; the file's name by default.
    pub(crate) name: Option<String>,
    /// Where applications, data and the gateway stand.
    #[schemars(required)]
    pub(crate) home: Option<Home>,
    /// How much is asked for.
    #[schemars(required)]
    pub(crate) demand: Option<Demand>,
    /// Which model, and how fast it is on which GPUs.
    #[schemars(required)]
    pub(crate) model: Option<Model>,
    /// What clients are promised.
    #[schemars(required)]
    pub(crate) slo: Option<Slo>,
    /// Where GPUs may be rented, by the name of the provider.
    #[schemars(required)]
    pub(crate) clouds: Option<Named<Cloud>>,
    /// Who serves the same model by the token, by any name.
    pub(crate) hosted: Option<Named<Hosted>>,
    /// What is run and paid today.
    #[schemars(required)]
    pub(crate) today: Option<Today>,
    /// Bytes that go somewhere every month.
    pub(crate) egress: Option<List<Flow>>,
    /// The model's weights, and how often they are moved.
    pub(crate) weights: Option<Weights>,
    /// A private line out of home, to compare egress with.
    pub(crate) interconnect: Option<Interconnect>,
    /// What people cost in USD each month, by what has to be run.
    pub(crate) people: Option<People>,
    /// What a change costs once.
    pub(crate) migration: Option<Migration>,
    /// GPUs that are paid until a day, whether used or not, beside today's pools.
    pub(crate) commitments: Option<List<Commitment>>,
    /// What may not be done.
    pub(crate) constraints: Option<Constraints>,
    /// What may be off, in percent.
    pub(crate) uncertainty: Option<Uncertainty>,
    /// Of two clouds at once, the percent that the first in the file gets; 60 by default.
    #[schemars(range(min = 1, max = 99))]
    pub(crate) split_percent: Option<u32>,
    /// Months in which a change has to pay for itself; 12 by default.
    #[schemars(range(min = 1, max = 120))]
    pub(crate) horizon_months: Option<u32>,
}

fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "enum": [1] })
}

/// Where applications, data and the gateway stand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Home {
    /// The provider, such as `aws`.
    #[schemars(required)]
    pub(crate) cloud: Option<String>,
    /// Its region, for the price of what leaves it.
    pub(crate) region: Option<String>,
    /// One price of a gigabyte that leaves it, in place of the book's tiers.
    pub(crate) egress_usd_per_gb: Option<f64>,
    /// Whether all of it may be moved to another cloud; `false` by default.
    pub(crate) may_move: Option<bool>,
}

/// How much is asked for. One of `requests_per_second`, `curve`, `rates` and `trace`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Demand {
    /// The same all month.
    pub(crate) requests_per_second: Option<f64>,
    /// Times with their rates, which repeat all month.
    #[schemars(length(min = 1))]
    pub(crate) curve: Option<List<Level>>,
    /// A CSV with `window_start_s` and a rate in each row.
    pub(crate) rates: Option<Rates>,
    /// A trace as `outrigger simulate` reads it; lengths are then its own.
    pub(crate) trace: Option<Trace>,
    /// Tokens of a prompt: a mean, or quantiles.
    pub(crate) prompt_tokens: Option<Tokens>,
    /// Tokens of an answer: a mean, or quantiles.
    pub(crate) output_tokens: Option<Tokens>,
    /// Standard deviation of the times between arrivals over their mean; 1 by default.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) arrival_cv: Option<f64>,
}

/// A time with its rate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Level {
    /// How long.
    #[schemars(required)]
    #[serde(rename = "for")]
    pub(crate) length: Option<Duration>,
    /// At which rate.
    #[schemars(required)]
    pub(crate) requests_per_second: Option<f64>,
}

/// A file of rates.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    /// The CSV, from this file's folder.
    #[schemars(required)]
    pub(crate) file: Option<String>,
    /// The column of the rate; `rps` by default.
    pub(crate) column: Option<String>,
    /// This many times as many requests; 1 by default.
    pub(crate) scale: Option<f64>,
}

/// A trace of requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trace {
    /// The trace, from this file's folder.
    #[schemars(required)]
    pub(crate) file: Option<String>,
    /// Over which times rates are taken; `10m` by default.
    pub(crate) window: Option<Duration>,
}

/// A number, or what is known of its spread.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Tokens {
    Mean(f64),
    Spread(Spread),
}

/// What is known of a length.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spread {
    /// The mean. Either this or `quantiles`.
    pub(crate) mean: Option<f64>,
    /// Standard deviation over mean; 1 by default.
    pub(crate) cv: Option<f64>,
    /// Such as `{ at: 0.5, tokens: 120 }`, from 0 to 1; straight lines between them.
    #[schemars(length(min = 2))]
    pub(crate) quantiles: Option<List<Quantile>>,
}

/// One quantile.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quantile {
    /// From 0 to 1.
    #[schemars(required, range(min = 0, max = 1))]
    pub(crate) at: Option<f64>,
    /// That share has at most so many.
    #[schemars(required, range(min = 0, max = 10_000_000))]
    pub(crate) tokens: Option<f64>,
}

/// Which model, and how fast it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    /// As people call it.
    pub(crate) name: Option<String>,
    /// One for each kind of GPU.
    #[schemars(required, length(min = 1))]
    pub(crate) profiles: Option<List<Profile>>,
}

/// How fast one replica is on one kind of GPU.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Which GPU, such as `h100`.
    #[schemars(required)]
    pub(crate) gpu: Option<String>,
    /// How many of them one replica takes.
    #[schemars(required, range(min = 1, max = 1024))]
    pub(crate) gpus: Option<u32>,
    /// Measured, by rising concurrency.
    #[schemars(required, length(min = 1))]
    pub(crate) points: Option<List<Point>>,
}

/// Times measured with so many requests at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    /// Requests at once.
    #[schemars(required, range(min = 1, max = 4096))]
    pub(crate) concurrency: Option<u32>,
    /// Time to the first token in milliseconds.
    #[schemars(required, range(min = 0, max = 1_000_000))]
    pub(crate) ttft_ms: Option<f64>,
    /// Time for each token after it in milliseconds.
    #[schemars(required, range(min = 0, max = 1_000_000))]
    pub(crate) tpot_ms: Option<f64>,
}

/// What 95 of 100 requests stay under.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slo {
    /// To the first token.
    #[schemars(required)]
    pub(crate) ttft_p95: Option<Duration>,
    /// For each token after it.
    #[schemars(required)]
    pub(crate) time_per_output_token_p95: Option<Duration>,
}

/// A provider of GPUs. Prices are the book's where they are not given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cloud {
    /// Which GPU, with a profile under `model.profiles`; the first profile's by default.
    pub(crate) gpu: Option<String>,
    /// Where in that cloud; the cheapest region of the book by default.
    pub(crate) region: Option<String>,
    /// The price of one GPU for an hour on demand.
    pub(crate) usd_per_gpu_hour: Option<f64>,
    /// GPUs of one machine; the book's, or one replica's where the price is given.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) instance_gpus: Option<u32>,
    /// The fewest that can be rented; the book's, or one machine's.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) min_gpus: Option<u32>,
    /// The price of one GPU for an hour, reserved; without it no base is reserved here.
    pub(crate) reserved_usd_per_gpu_hour: Option<f64>,
    /// For how many months it is then reserved; 12 by default.
    #[schemars(range(min = 1, max = 120))]
    pub(crate) term_months: Option<u32>,
    /// From asking for a machine to its first answer; `10m` by default.
    pub(crate) cold_start: Option<Duration>,
    /// One price of a gigabyte that leaves it, in place of the book's tiers.
    pub(crate) egress_usd_per_gb: Option<f64>,
}

/// Who serves the same model by the token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hosted {
    /// The provider in the book, such as `together_ai`.
    pub(crate) provider: Option<String>,
    /// The model in the book.
    pub(crate) model: Option<String>,
    /// The price, in place of the book's.
    pub(crate) usd_per_million_tokens: Option<TokenPrice>,
}

/// What a million tokens cost.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenPrice {
    /// Of prompts.
    #[schemars(required)]
    pub(crate) input: Option<f64>,
    /// Of answers.
    #[schemars(required)]
    pub(crate) output: Option<f64>,
}

/// What is run and paid today.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Today {
    /// GPUs, beside those under `commitments`.
    pub(crate) pools: Option<List<Pool>>,
    /// A name under `hosted`, where all of the demand is served by the token today.
    pub(crate) hosted: Option<String>,
    /// What is paid whatever is changed.
    pub(crate) other: Option<List<Other>>,
    /// The bill of a month, to compare with.
    pub(crate) invoice: Option<Invoice>,
}

/// GPUs of today.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// A name under `clouds`.
    #[schemars(required)]
    pub(crate) cloud: Option<String>,
    /// How many.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) gpus: Option<u32>,
    /// What one costs for an hour; the cloud's price on demand by default.
    pub(crate) usd_per_gpu_hour: Option<f64>,
}

/// What is paid whatever is changed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Other {
    /// What for.
    #[schemars(required)]
    pub(crate) name: Option<String>,
    /// How much.
    #[schemars(required)]
    pub(crate) usd_per_month: Option<f64>,
}

/// The bill of a month: lines, or an export.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invoice {
    /// What was billed, by kind.
    #[schemars(length(min = 1))]
    pub(crate) lines: Option<List<InvoiceLine>>,
    /// An export in FOCUS as CSV, from this file's folder.
    pub(crate) focus: Option<String>,
}

/// A line of the bill.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvoiceLine {
    /// What it pays for.
    #[schemars(required)]
    pub(crate) kind: Option<InvoiceKind>,
    /// How much; credits are negative.
    #[schemars(required)]
    pub(crate) usd: Option<f64>,
}

/// What a line pays for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum InvoiceKind {
    Gpu,
    Tokens,
    Egress,
    Storage,
    Other,
}

/// Where bytes start or end.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum End {
    Home,
    Gpus,
    Internet,
}

/// Bytes that go the same way every month.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flow {
    /// What they are.
    #[schemars(required)]
    pub(crate) name: Option<String>,
    /// Where they start.
    #[schemars(required)]
    pub(crate) from: Option<End>,
    /// Where they go.
    #[schemars(required)]
    pub(crate) to: Option<End>,
    /// How many gigabytes of 10⁹ bytes in a month.
    #[schemars(required, range(min = 0, max = 1_000_000_000))]
    pub(crate) gb_per_month: Option<f64>,
    /// How many of them are different ones.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(crate) unique_gb_per_month: Option<f64>,
}

/// The model's weights.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weights {
    /// Their size.
    #[schemars(required, range(min = 0, max = 100_000))]
    pub(crate) gb: Option<f64>,
    /// Starts of a replica in a month, each of which reads all of them.
    #[schemars(required, range(min = 0, max = 100_000_000))]
    pub(crate) pulls_per_month: Option<u32>,
    /// New versions in a month; 1 by default.
    #[schemars(range(min = 0, max = 100_000))]
    pub(crate) releases_per_month: Option<u32>,
    /// What a copy costs to keep; 0.023 by default.
    pub(crate) storage_usd_per_gb_month: Option<f64>,
}

/// A private line out of home.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interconnect {
    /// Its ports at both ends.
    #[schemars(required)]
    pub(crate) usd_per_month: Option<f64>,
    /// What leaves home by it.
    #[schemars(required)]
    pub(crate) usd_per_gb: Option<f64>,
}

/// USD each month.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct People {
    /// With what is run today.
    pub(crate) today: Option<f64>,
    /// With one cloud; as today by default.
    pub(crate) single: Option<f64>,
    /// With a hosted API; as with one cloud by default.
    pub(crate) hosted: Option<f64>,
    /// With GPUs in another cloud than the rest; as with one cloud by default.
    pub(crate) pattern1: Option<f64>,
    /// With two clouds at once; as for pattern 1 by default.
    pub(crate) pattern2: Option<f64>,
    /// With a reserved base and bursts; as with one cloud by default.
    pub(crate) pattern3: Option<f64>,
}

/// What a change costs once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Migration {
    /// Work, tools and tests.
    pub(crate) usd: Option<f64>,
    /// How long today's GPUs are paid beside the new ones.
    pub(crate) overlap: Option<Duration>,
}

/// GPUs that are paid until a day.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commitment {
    /// A name under `clouds`.
    #[schemars(required)]
    pub(crate) cloud: Option<String>,
    /// How many.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) gpus: Option<u32>,
    /// What one costs for an hour.
    #[schemars(required)]
    pub(crate) usd_per_gpu_hour: Option<f64>,
    /// The last day.
    #[schemars(required)]
    pub(crate) until: Option<Date>,
}

/// What may not be done.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Constraints {
    /// GPUs may stand in these clouds only, by contract or law.
    #[schemars(length(min = 1))]
    pub(crate) only_clouds: Option<List<String>>,
    /// Data that the GPUs have to be near, in TB of 1000 GB.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(crate) data_gravity_tb: Option<f64>,
    /// From how many TB on data keep the GPUs at home; 1000 by default.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(crate) data_gravity_limit_tb: Option<f64>,
    /// How long a burst may take to start; any time by default.
    pub(crate) cold_start_limit: Option<Duration>,
    /// Whether somebody can run more than one provider; `true` by default.
    pub(crate) platform_team: Option<bool>,
    /// For `--optimize`: the percent of the peak that has to survive the loss of any provider; 0 by default.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) survive_percent: Option<u32>,
}

/// What may be off.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uncertainty {
    /// Prices on demand and by the token, from the tenth to the ninetieth percentile; 20 by default.
    #[schemars(range(min = 0, max = 99))]
    pub(crate) price_percent: Option<u32>,
    /// The load; 20 by default.
    #[schemars(range(min = 0, max = 99))]
    pub(crate) load_percent: Option<u32>,
}
