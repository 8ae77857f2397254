//! `outrigger schema`: the JSON Schema of the fleet file, for editors.

use super::{Exit, write_out};
use crate::config::json_schema_text;

/// Print the JSON Schema of the fleet file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Exit {
    write_out(&json_schema_text())
}
