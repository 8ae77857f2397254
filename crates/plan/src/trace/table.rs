//! The plain CSV: `arrival_s`, `prompt_tokens`, `output_tokens`, and perhaps `model`, `session`, `stream`.
//!
//! Also as Azure publishes its traces (`TIMESTAMP`, `ContextTokens`, `GeneratedTokens`), so that the large ones need
//! not be rewritten first. Other columns are ignored. Rows are in the order of their times: sorting a file is the
//! business of a tool for that, and a file out of order is more often a mistake.

use super::{
    csv::{Header, Wanted, text},
    fault::TraceFault,
    lines::Line,
    models::Models,
    number::SECONDS,
    row::{Field, Row, request, session},
};

const TIME: usize = 0;
const PROMPT: usize = 1;
const OUTPUT: usize = 2;
const MODEL: usize = 3;
const SESSION: usize = 4;
const STREAM: usize = 5;

const DATED: &str = "TIMESTAMP";

const WANTED: [Wanted<'static>; 6] = [
    Wanted::required(&["arrival_s", "timestamp_s", DATED]),
    Wanted::required(&["prompt_tokens", "ContextTokens"]),
    Wanted::required(&["output_tokens", "GeneratedTokens"]),
    Wanted::optional(&["model"]),
    Wanted::optional(&["session"]),
    Wanted::optional(&["stream"]),
];

#[derive(Debug)]
pub(super) struct Table {
    header: Header<6>,
    dated: bool,
}

impl Table {
    pub(super) fn new(header: Line<'_>) -> Result<Self, TraceFault> {
        let header = Header::parse(header, &WANTED)?;
        let dated = header.name(TIME) == DATED;
        Ok(Self { header, dated })
    }

    pub(super) fn time_column(&self) -> &str {
        self.header.name(TIME)
    }

    pub(super) fn row(&self, line: Line<'_>, models: &mut Models) -> Result<Row, TraceFault> {
        let row = line.row;
        let fields = self.header.split(line)?;
        let field = |slot: usize| Field { column: self.header.name(slot), text: fields[slot] };
        let time = if self.dated { field(TIME).time(row)? } else { field(TIME).nanos(row, SECONDS)? };
        let mut arrival = request(field(PROMPT).tokens(row)?, field(OUTPUT).tokens(row)?);
        if !fields[MODEL].is_empty() {
            arrival.model = Field { column: self.header.name(MODEL), text: &text(fields[MODEL]) }.model(row, models)?;
        }
        if !fields[SESSION].is_empty() {
            arrival.session = session(&[&text(fields[SESSION])]);
        }
        arrival.stream = field(STREAM).flag(row, true)?;
        Ok(Row { number: row, time, arrival })
    }
}
