//! `outrigger weights plan`: what it would cost to bring a version somewhere, and which way of having it is the cheapest.

use std::path::{Path, PathBuf};

use outrigger_core::{
    bill::{self, Cost, Egress, Month, Way},
    units::NanoUsd,
};
use outrigger_weights::{
    Error, Store, Wanted,
    preview::{self, Preview},
    store::Side,
};
use serde_json::{Value, json};

use super::{
    super::{Exit, write_out},
    failed,
    price::{self, Price},
    progress,
};

/// Show what it would cost to bring a version somewhere: bytes, requests, dollars and time; and with --cold-starts, which way
/// of having it where it is needed is the cheapest. Nothing is fetched but the manifest.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which model, and which ref or version of it: `main` if nothing is said.
    #[arg(value_name = "ORG/MODEL[@REF]")]
    wanted: Wanted,
    /// The store.
    #[arg(long, value_name = "STORE")]
    from: String,
    /// Where it is to go: a directory, as `pull` would, or a store, as `replicate` would. May be given several times.
    #[arg(long, value_name = "DIR|STORE", required = true)]
    to: Vec<String>,
    /// What a pull would be given to copy from.
    #[arg(long, value_name = "DIR")]
    reuse: Vec<PathBuf>,
    #[command(flatten)]
    price: Price,
    /// The cloud that it goes to: between regions of one cloud a GB costs less than to elsewhere.
    #[arg(long, value_name = "NAME")]
    to_cloud: Option<String>,
    /// What a GB costs to keep in a store for a month.
    #[arg(long, value_name = "USD", value_parser = price::usd)]
    storage_usd_per_gb_month: Option<NanoUsd>,
    /// The rate at which the time is calculated, in 10⁶ bytes a second, such as `pull` has shown.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    mb_per_s: Option<u64>,
    /// Loads of the model a month, by all nodes together, for the comparison.
    #[arg(long, value_name = "N")]
    cold_starts: Option<u64>,
    /// Nodes that load it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u64,
    /// Clouds that they are in, besides the store's.
    #[arg(long, value_name = "N", default_value_t = 1)]
    clouds: u64,
    /// New versions a month.
    #[arg(long, value_name = "N", default_value_t = 1)]
    releases: u64,
    /// What a GB out of a neutral store, or a content network before it, costs.
    #[arg(long, value_name = "USD", value_parser = price::usd)]
    neutral_usd_per_gb: Option<NanoUsd>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One way of the version, with its part of the bill.
struct Edge {
    to: String,
    is_store: bool,
    preview: Preview,
    usd: Option<NanoUsd>,
}

struct Bill {
    edges: Vec<Edge>,
    total: Option<NanoUsd>,
    /// Why there is no price.
    unpriced: Option<String>,
    month: Option<Month>,
}

pub(super) async fn run(args: Args) -> Exit {
    match bill(&args).await {
        Ok(bill) if args.json => write_out(&format!("{}\n", as_json(&args, &bill))),
        Ok(bill) => write_out(&as_words(&args, &bill)),
        Err(error) => failed(&error),
    }
}

async fn bill(args: &Args) -> Result<Bill, Error> {
    let mut edges = Vec::new();
    for to in &args.to {
        let is_store = to.contains("://");
        let preview = if is_store {
            let (from, to) = (Store::parse_as(Side::From, &args.from)?, Store::parse_as(Side::To, to)?);
            preview::of_replication(&from, &args.wanted, &to).await?
        } else {
            preview::of_pull(&Store::parse(&args.from)?, &args.wanted, Path::new(to), &args.reuse).await?
        };
        edges.push(Edge { to: to.clone(), is_store, preview, usd: None });
    }
    let (egress, unpriced) = match args.price.egress(&args.from, args.to_cloud.as_deref()) {
        Ok(egress) => (Some(egress), None),
        Err(error) => (None, Some(error.help)),
    };
    let total = egress.as_ref().map(|egress| shared(egress, &mut edges));
    let month = egress.zip(args.cold_starts).map(|(egress, cold_starts)| Month {
        bytes: edges.first().map_or(0, |edge| edge.preview.total),
        clouds: args.clouds,
        nodes: args.nodes,
        cold_starts,
        releases: args.releases,
        egress,
        storage_usd_per_gb: args.storage_usd_per_gb_month.unwrap_or_default(),
        neutral_usd_per_gb: args.neutral_usd_per_gb,
    });
    if args.cold_starts.is_some() && month.is_none() {
        return Err(Error::usage(
            format!("what egress out of {} costs is not known, so that the ways cannot be compared", args.from),
            "give --source-cloud, or --egress-usd-per-gb",
        ));
    }
    Ok(Bill { edges, total, unpriced, month })
}

/// The bill of all edges, which leave by one meter, and each one's part by its bytes.
fn shared(egress: &Egress, edges: &mut [Edge]) -> NanoUsd {
    let all: u128 = edges.iter().map(|edge| u128::from(edge.preview.bytes())).sum();
    let total = egress.usd(all);
    for edge in edges {
        let part = u128::from(total.0.unsigned_abs()) * u128::from(edge.preview.bytes());
        edge.usd = Some(NanoUsd(i64::try_from((part + all / 2).checked_div(all).unwrap_or(0)).unwrap_or(i64::MAX)));
    }
    total
}

fn seconds(args: &Args, preview: &Preview) -> Option<f64> {
    args.mb_per_s.map(|rate| preview.bytes() as f64 / (rate as f64 * 1e6))
}

fn storage(args: &Args, edge: &Edge) -> Option<NanoUsd> {
    let price = args.storage_usd_per_gb_month.filter(|_| edge.is_store)?;
    Some(bill::usd_of(price, edge.preview.total.into()))
}

fn as_json(args: &Args, bill: &Bill) -> Value {
    let usd = |amount: Option<NanoUsd>| amount.map(NanoUsd::as_usd);
    let edges = bill.edges.iter().map(|edge| {
        let Preview { digest, total, there, copied, fetched, control, requests } = &edge.preview;
        json!({"from": args.from, "to": edge.to, "digest": digest.to_string(), "total": total, "there": there,
            "copied": copied, "fetched": fetched, "control": control, "bytes": edge.preview.bytes(),
            "requests": requests, "egress_usd": usd(edge.usd), "storage_usd_per_month": usd(storage(args, edge)),
            "seconds": seconds(args, &edge.preview)})
    });
    let mut out = json!({"edges": edges.collect::<Value>(), "egress_usd": usd(bill.total)});
    if let Some(month) = &bill.month {
        let ways = Way::ALL.into_iter().map(|way| {
            let cost = month.cost(way);
            json!({"way": way.name(), "usd_per_month": cost.map(|cost| cost.total().as_usd()),
                "egress_usd": cost.map(|cost| cost.egress.as_usd()), "storage_usd": cost.map(|cost| cost.storage.as_usd())})
        });
        out["month"] = json!({"clouds": month.clouds, "nodes": month.nodes, "cold_starts": month.cold_starts,
            "releases": month.releases, "ways": ways.collect::<Value>(), "cheapest": month.cheapest().name(),
            "crossover": {
                "cold_starts_direct_over_replicate": month.cold_starts_until(Way::Direct, Way::Replicate),
                "cold_starts_direct_over_node_local": month.cold_starts_until(Way::Direct, Way::NodeLocal),
                "cold_starts_neutral_store_over_replicate": month.cold_starts_until(Way::Neutral, Way::Replicate),
                "nodes_node_local_over_replicate": month.nodes_until(Way::NodeLocal, Way::Replicate)}});
    }
    out
}

fn as_words(args: &Args, bill: &Bill) -> String {
    let bytes = progress::bytes;
    let mut text = String::new();
    for edge in &bill.edges {
        let Preview { digest, total, there, copied, fetched, control, requests } = &edge.preview;
        text += &format!("{} -> {}\n  {} {digest}, {}\n", args.from, edge.to, args.wanted, bytes(*total));
        text += &format!("  {} there, {} copied, {} to fetch, ", bytes(*there), bytes(*copied), bytes(*fetched));
        text += &format!("{control} bytes of manifest and ref; {requests} requests\n");
        let mut facts = Vec::new();
        facts.extend(edge.usd.map(|usd| format!("egress {usd}")));
        facts.extend(storage(args, edge).map(|usd| format!("storage {usd} a month")));
        facts.extend(seconds(args, &edge.preview).map(|s| format!("{s:.0} s at {} MB/s", args.mb_per_s.unwrap_or(1))));
        if !facts.is_empty() {
            text += &format!("  {}\n", facts.join(", "));
        }
    }
    if let Some(total) = bill.total.filter(|_| bill.edges.len() > 1) {
        text += &format!("together: egress {total}\n");
    }
    if let Some(help) = &bill.unpriced {
        text += &format!("egress is not priced: {help}\n");
    }
    bill.month.as_ref().map_or(text.clone(), |month| text + &compared(args, month))
}

fn compared(args: &Args, month: &Month) -> String {
    let what = |way: Way| match way {
        Way::Direct => "every cold start reads the store",
        Way::Replicate => "a copy in a store of each cloud",
        Way::NodeLocal => "a copy on each node's own disk",
        Way::Neutral => "a neutral store or content network",
    };
    let mut text = format!(
        "\na month of {} cold starts on {} nodes in {} other clouds, {} new versions:\n",
        month.cold_starts, month.nodes, month.clouds, month.releases
    );
    let cheapest = month.cheapest();
    for way in Way::ALL {
        let mark = if way == cheapest { "  <- cheapest" } else { "" };
        let cost = match month.cost(way) {
            Some(Cost { egress, storage }) => {
                format!("{:>14}  (egress {egress}, storage {storage}){mark}", (egress + storage).to_string())
            }
            None => "not priced: give --neutral-usd-per-gb".to_owned(),
        };
        text += &format!("  {:<36}{cost}\n", what(way));
    }
    let crossings = [
        (
            month.cold_starts_until(Way::Direct, Way::Replicate),
            "cold starts on, a copy in each cloud costs less than reading the store",
        ),
        (month.cold_starts_until(Way::Neutral, Way::Replicate), "cold starts on, it costs less than a neutral store"),
        (month.nodes_until(Way::NodeLocal, Way::Replicate), "nodes on, it costs less than copies on their disks"),
    ];
    for (number, words) in crossings {
        text += &number.map(|number| format!("  from {number} {words}\n")).unwrap_or_default();
    }
    if args.storage_usd_per_gb_month.is_none() {
        text += "  storage is not priced: give --storage-usd-per-gb-month\n";
    }
    text
}
