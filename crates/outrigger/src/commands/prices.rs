//! `outrigger prices`: the price book, and other price lists made into rows of it.

use std::{fmt::Write as _, fs, path::PathBuf};

use jiff::civil::Date;
use outrigger_core::{price, units::NanoUsd};
use outrigger_plan::economics::{Book, Offer, age_days};
use serde_json::{Value, json};

use super::{Exit, input::Failed, values, write_out};

/// Show what GPUs, tokens and egress cost where, with the source and date of each price.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Only this GPU, such as h100 or h100-sxm.
    #[arg(long)]
    gpu: Option<String>,
    /// Only this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Spot, marketplace and prototyping prices too, and those that leave processors and memory out.
    #[arg(long)]
    all: bool,
    /// The day that ages are counted to; today unless given.
    #[arg(long, value_name = "DATE", value_parser = values::date)]
    as_of: Option<Date>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Import(Import),
}

/// Read LiteLLM's table of prices or a CSV, and print the rows that can be believed as a CSV for `plan --prices`.
#[derive(Debug, clap::Args)]
struct Import {
    /// LiteLLM's model_prices_and_context_window.json, or a CSV with a header.
    file: PathBuf,
    /// The day that prices without a date were read on; today unless given.
    #[arg(long, value_name = "DATE", value_parser = values::date)]
    as_of: Option<Date>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let done = match &args.what {
        Some(What::Import(import)) => imported(import),
        None => Ok(write_out(&shown(args))),
    };
    done.unwrap_or_else(|failed| {
        eprintln!("error: {}", failed.message);
        failed.exit
    })
}

fn shown(args: &Args) -> String {
    let today = args.as_of.unwrap_or_else(values::today);
    let book = Book::builtin();
    let is_asked = |row: &&Offer| {
        (args.all || row.is_steady())
            && args.gpu.as_ref().is_none_or(|gpu| row.is_a(gpu))
            && args.provider.as_ref().is_none_or(|provider| price::same_provider(&row.provider, provider))
    };
    let mut offers: Vec<&Offer> = book.offers.iter().filter(is_asked).collect();
    offers.sort_by_key(|row| (row.gpu.clone(), per_gpu(row), row.provider.clone(), row.region.clone()));
    if args.json { as_json(args, today, &book, &offers) } else { as_table(args, today, &book, &offers) }
}

fn per_gpu(row: &Offer) -> NanoUsd {
    NanoUsd(row.usd_per_hour.0 / i64::from(row.gpus.max(1)))
}

/// Providers that have one GPU of a kind in the book and no machine with several.
fn gaps(offers: &[&Offer]) -> Vec<String> {
    let mut gaps: Vec<String> = Vec::new();
    for row in offers.iter().filter(|row| row.gpus == 1) {
        let several = |other: &&&Offer| other.provider == row.provider && other.gpu == row.gpu && other.gpus > 1;
        let gap = format!("{} {}: only 1x is known", row.provider, row.gpu);
        if !offers.iter().any(|other| several(&other)) && !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
    gaps
}

fn staleness(book: &Book, offers: &[&Offer], today: Date) -> (usize, usize, String) {
    let dates = offers.iter().map(|row| row.as_of.as_str()).chain(book.hosted.iter().map(|row| row.as_of.as_str()));
    let ages: Vec<(i64, &str)> = dates.map(|as_of| (age_days(as_of, today).unwrap_or(i64::MAX), as_of)).collect();
    let older = ages.iter().filter(|(age, _)| *age > 30).count();
    (older, ages.len(), ages.iter().max().map_or_else(String::new, |(_, as_of)| (*as_of).to_owned()))
}

fn as_table(args: &Args, today: Date, book: &Book, offers: &[&Offer]) -> String {
    let mut out = String::new();
    let wide = |of: fn(&Offer) -> &str| offers.iter().map(|row| of(row).len()).max().unwrap_or(0).max(8);
    let (provider, region) = (wide(|row| &row.provider), wide(|row| &row.region));
    let (machine, gpu) = (wide(|row| &row.instance_type), wide(|row| &row.gpu));
    let _ = writeln!(
        out,
        "{:<gpu$} {:<6} {:<provider$} {:<region$} {:<machine$} {:>4} {:>4} {:>10} {:>10} {:<11} {:<10} source",
        "gpu", "form", "provider", "region", "machine", "gpus", "min", "$/gpu/h", "$/h", "tier", "as of"
    );
    for row in offers {
        let _ = writeln!(
            out,
            "{:<gpu$} {:<6} {:<provider$} {:<region$} {:<machine$} {:>4} {:>4} {:>10.4} {:>10.4} {:<11} {:<10} {} ({})",
            row.gpu,
            row.form,
            row.provider,
            row.region,
            row.instance_type,
            row.gpus,
            row.min_gpus,
            per_gpu(row).as_usd(),
            row.usd_per_hour.as_usd(),
            row.tier,
            row.as_of,
            row.source,
            row.licence
        );
    }
    if args.gpu.is_none() {
        out += "\n$ per million tokens          in         out    cached in  as of       source\n";
        for row in &book.hosted {
            let price = [row.price.input, row.price.output, row.price.cached_input].map(NanoUsd::as_usd);
            let (source, licence) = (&row.source, &row.licence);
            let _ = writeln!(
                out,
                "{:<60} {:>8.4} {:>8.4} {:>8.4}  {}  {source} ({licence})",
                row.key, price[0], price[1], price[2], row.as_of
            );
        }
        out += "\negress, marginal by GB of a month\n";
        for table in price::egress_tables() {
            for tier in &table.tiers {
                let end = tier.up_to_gb.map_or_else(|| "on".to_owned(), |gb| format!("to {gb}"));
                let usd = tier.usd_per_gb.as_usd();
                let (name, way, region) = (table.provider, table.path.as_str(), table.region);
                let _ = writeln!(
                    out,
                    "{name:<12} {way:<18} {region:<13} from {:>6} {end:<10} {usd:>7.4}  {}  {}",
                    tier.from_gb, tier.as_of, tier.source
                );
            }
        }
    }
    let (older, of, oldest) = staleness(book, offers, today);
    let _ = writeln!(out, "\n{older} of {of} prices are older than 30 days on {today}; the oldest is of {oldest}");
    for gap in gaps(offers) {
        let _ = writeln!(out, "gap: {gap}");
    }
    out
}

fn as_json(args: &Args, today: Date, book: &Book, offers: &[&Offer]) -> String {
    let gpu = |row: &&Offer| {
        json!({
            "provider": row.provider, "region": row.region, "instance_type": row.instance_type, "gpu": row.gpu,
            "form": row.form, "gpus": row.gpus, "min_gpus": row.min_gpus, "usd_per_hour": row.usd_per_hour.as_usd(),
            "usd_per_gpu_hour": per_gpu(row).as_usd(), "tier": row.tier, "billed_apart": row.billed_apart,
            "as_of": row.as_of, "source": row.source, "licence": row.licence,
        })
    };
    let tokens: Vec<Value> = book
        .hosted
        .iter()
        .map(|row| {
            json!({
                "key": row.key, "provider": row.provider, "as_of": row.as_of, "source": row.source, "licence": row.licence,
                "usd_per_million_tokens": {
                    "input": row.price.input.as_usd(), "output": row.price.output.as_usd(),
                    "cached_input": row.price.cached_input.as_usd(),
                },
            })
        })
        .collect();
    let tiers = price::egress_tables().iter().flat_map(|table| {
        table.tiers.iter().map(|tier| {
            json!({
                "provider": table.provider, "path": table.path.as_str(), "region": table.region,
                "from_gb": tier.from_gb, "up_to_gb": tier.up_to_gb, "usd_per_gb": tier.usd_per_gb.as_usd(),
                "as_of": tier.as_of, "source": tier.source, "licence": price::EGRESS_LICENCE,
            })
        })
    });
    let egress: Vec<Value> = tiers.collect();
    let (older, of, oldest) = staleness(book, offers, today);
    let dropped: Vec<Value> =
        book.dropped.iter().map(|dropped| json!({ "row": dropped.row, "why": dropped.why })).collect();
    let value = json!({
        "as_of": today.to_string(),
        "gpus": offers.iter().map(gpu).collect::<Vec<Value>>(),
        "tokens": if args.gpu.is_none() { tokens } else { Vec::new() },
        "egress": if args.gpu.is_none() { egress } else { Vec::new() },
        "stale": { "older_than_30_days": older, "of": of, "oldest": oldest },
        "gaps": gaps(offers),
        "dropped": dropped,
    });
    format!("{value}\n")
}

fn imported(args: &Import) -> Result<Exit, Failed> {
    let text = fs::read_to_string(&args.file).map_err(|error| Failed::unreadable(&args.file, &error))?;
    let today = args.as_of.unwrap_or_else(values::today);
    let mut book = Book::default();
    let source = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = if text.trim_start().starts_with(['{', '[']) {
        book.add_litellm(&text, &today.to_string())
    } else {
        book.add_csv(&text, &source)
    };
    let count =
        read.map_err(|why| Failed::usage(format!("{}: {why}\n  help: see docs/economics.md", args.file.display())))?;
    for note in &book.notes {
        eprintln!("note: {note}");
    }
    for dropped in &book.dropped {
        eprintln!("left out: {}: {}", dropped.row, dropped.why);
    }
    eprintln!("{count} rows taken, {} left out", book.dropped.len());
    if count == 0 {
        return Err(Failed::usage("no row can be believed\n  help: the reasons are above"));
    }
    Ok(write_out(&if args.json { book_json(&book) } else { book_csv(&book) }))
}

/// A cell that holds commas or quotes is quoted.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn book_csv(book: &Book) -> String {
    let mut out = String::new();
    if !book.offers.is_empty() {
        out += "provider,region,instance_type,gpu,form,gpus,min_gpus,usd_per_hour,tier,billed_apart,as_of,source,licence\n";
    }
    for row in &book.offers {
        let cells = [
            cell(&row.provider),
            cell(&row.region),
            cell(&row.instance_type),
            cell(&row.gpu),
            cell(&row.form),
            row.gpus.to_string(),
            row.min_gpus.to_string(),
            row.usd_per_hour.as_usd().to_string(),
            cell(&row.tier),
            row.billed_apart.to_string(),
            cell(&row.as_of),
            cell(&row.source),
            cell(&row.licence),
        ];
        out += &(cells.join(",") + "\n");
    }
    if !book.hosted.is_empty() {
        out += "key,provider,input_usd_per_mtok,output_usd_per_mtok,cached_input_usd_per_mtok,as_of,source,licence\n";
    }
    for row in &book.hosted {
        let price = [row.price.input, row.price.output, row.price.cached_input].map(|usd| usd.as_usd().to_string());
        let ends = [cell(&row.as_of), cell(&row.source), cell(&row.licence)].join(",");
        out += &format!("{},{},{},{ends}\n", cell(&row.key), cell(&row.provider), price.join(","));
    }
    out
}

fn book_json(book: &Book) -> String {
    let rows = json!({ "gpus": book.offers.len(), "tokens": book.hosted.len() });
    let dropped: Vec<Value> =
        book.dropped.iter().map(|dropped| json!({ "row": dropped.row, "why": dropped.why })).collect();
    let value = json!({ "rows": rows, "csv": book_csv(book), "notes": book.notes, "dropped": dropped });
    format!("{value}\n")
}
