//! `outrigger schema`: the JSON Schemas of the fleet file and of a scenario, for editors.

use super::{Exit, write_out};
use crate::config::{json_schema_text, scenario_schema_text};

/// Print the JSON Schema of the fleet file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// That of a scenario, as `outrigger plan` reads it.
    #[arg(long)]
    scenario: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    write_out(&if args.scenario { scenario_schema_text() } else { json_schema_text() })
}
