//! `outrigger model eval`: how well the engine model predicts measurements that it was not fitted to.

use std::path::PathBuf;

use outrigger_plan::perf::{Quantiles, evaluate};
use serde_json::json;

use super::{
    Exit,
    input::{Failed, measured_rows},
    write_out,
};

/// The model of engine speed that simulations stand on.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Eval(Eval),
}

/// Fit the model to measured points and score it on others.
#[derive(Debug, clap::Args)]
struct Eval {
    /// Points to fit to: CSV with model, system, gpus, backend, precision, isl, osl, concurrency, ttft_ms, tpot_ms.
    #[arg(long)]
    train: PathBuf,
    /// Points to predict, of engines that are in the first file.
    #[arg(long)]
    test: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let What::Eval(eval) = &args.what;
    match evaluated(eval) {
        Ok(text) => write_out(&text),
        Err(failed) => {
            eprintln!("error: {}", failed.message);
            failed.exit
        }
    }
}

fn evaluated(args: &Eval) -> Result<String, Failed> {
    let (train, test) = (measured_rows(&args.train)?, measured_rows(&args.test)?);
    let found = evaluate(&train, &test);
    let both = |q: &Quantiles| json!({ "median": q.median, "p90": q.p90 });
    if args.json {
        let value = json!({
            "rows": found.rows,
            "unpredicted": found.unpredicted,
            "tpot": both(&found.tpot),
            "ttft": both(&found.ttft),
            "interpolation": { "tpot": both(&found.baseline.tpot), "ttft": both(&found.baseline.ttft) },
        });
        return Ok(format!("{value}\n"));
    }
    let row = |name: &str, q: &Quantiles, base: &Quantiles| {
        let pct = |x: f64| format!("{:.1} %", x * 100.0);
        let cells = [pct(q.median), pct(q.p90), pct(base.median), pct(base.p90)];
        format!("{name:<22} {:>8} {:>8} {:>14} {:>8}\n", cells[0], cells[1], cells[2], cells[3])
    };
    Ok(format!(
        "{} points predicted, {} of engines that were not in the fit\n{:<22} {:>8} {:>8} {:>14} {:>8}\n",
        found.rows, found.unpredicted, "relative error", "median", "p90", "interpolation", "p90"
    ) + &row("time per output token", &found.tpot, &found.baseline.tpot)
        + &row("time to first token", &found.ttft, &found.baseline.ttft))
}
