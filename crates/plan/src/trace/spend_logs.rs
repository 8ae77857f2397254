//! LiteLLM's table `LiteLLM_SpendLogs`, exported as JSON lines or as CSV.
//!
//! The model is the `model_group` that clients ask for, or `model` where that is empty. A request streamed when its
//! first token came before its end: LiteLLM writes the end for both when it did not. Failures without output are passed
//! over and counted, as in the request log.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    csv::{self, Header, Wanted},
    fault::TraceFault,
    json::{self, Raw},
    lines::Line,
    models::Models,
    number::unquoted,
    request_log::Entry,
    row::{Field, Row, request, session},
};

const START: &str = "startTime";
const FIRST_TOKEN: &str = "completionStartTime";
const END: &str = "endTime";
const PROMPT: &str = "prompt_tokens";
const OUTPUT: &str = "completion_tokens";
const GROUP: &str = "model_group";
const MODEL: &str = "model";
const STATUS: &str = "status";
const SESSION: &str = "session_id";

const WANTED: [Wanted<'static>; 9] = [
    Wanted::required(&[START]),
    Wanted::optional(&[FIRST_TOKEN]),
    Wanted::optional(&[END]),
    Wanted::required(&[PROMPT]),
    Wanted::required(&[OUTPUT]),
    Wanted::optional(&[GROUP]),
    Wanted::optional(&[MODEL]),
    Wanted::optional(&[STATUS]),
    Wanted::optional(&[SESSION]),
];

#[derive(Debug)]
pub(super) struct Table(Header<9>);

impl Table {
    pub(super) fn new(header: Line<'_>) -> Result<Self, TraceFault> {
        Header::parse(header, &WANTED).map(Self)
    }

    pub(super) fn entry(&self, line: Line<'_>, models: &mut Models) -> Result<Entry, TraceFault> {
        let [start, first_token, end, prompt, output, group, model, status, session] = self.0.split(line)?;
        let (group, model, session) = (csv::text(group), csv::text(model), csv::text(session));
        Spend { start, first_token, end, prompt, output, group, model, status, session }.entry(line.row, models)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Request<'l> {
    #[serde(borrow, rename = "startTime")]
    start: Raw<'l>,
    #[serde(rename = "completionStartTime")]
    first_token: Raw<'l>,
    #[serde(rename = "endTime")]
    end: Raw<'l>,
    #[serde(rename = "prompt_tokens")]
    prompt: Raw<'l>,
    #[serde(rename = "completion_tokens")]
    output: Raw<'l>,
    #[serde(rename = "model_group")]
    group: Raw<'l>,
    model: Raw<'l>,
    status: Raw<'l>,
    #[serde(rename = "session_id")]
    session: Raw<'l>,
}

pub(super) fn json_entry(line: Line<'_>, models: &mut Models) -> Result<Entry, TraceFault> {
    let row = line.row;
    let line: Request<'_> = json::object(line)?;
    let spend = Spend {
        start: json::bytes(line.start),
        first_token: json::bytes(line.first_token),
        end: json::bytes(line.end),
        prompt: json::bytes(line.prompt),
        output: json::bytes(line.output),
        group: json::text(line.group),
        model: json::text(line.model),
        status: json::bytes(line.status),
        session: json::text(line.session),
    };
    spend.entry(row, models)
}

/// The fields of either way to write it.
struct Spend<'l> {
    start: &'l [u8],
    first_token: &'l [u8],
    end: &'l [u8],
    prompt: &'l [u8],
    output: &'l [u8],
    group: Cow<'l, [u8]>,
    model: Cow<'l, [u8]>,
    status: &'l [u8],
    session: Cow<'l, [u8]>,
}

impl Spend<'_> {
    fn entry(&self, row: u64, models: &mut Models) -> Result<Entry, TraceFault> {
        let failed = unquoted(self.status) == b"failure";
        if failed && matches!(unquoted(self.output), b"" | b"0") {
            return Ok(Entry::Failed);
        }
        let prompt = Field { column: PROMPT, text: self.prompt }.tokens(row)?;
        let mut arrival = request(prompt, Field { column: OUTPUT, text: self.output }.tokens(row)?);
        let model = if self.group.is_empty() {
            Field { column: MODEL, text: &self.model }
        } else {
            Field { column: GROUP, text: &self.group }
        };
        arrival.model = model.model(row, models)?;
        arrival.session = session(&[&self.session]);
        arrival.stream = unquoted(self.first_token).is_empty() || unquoted(self.first_token) != unquoted(self.end);
        let time = Field { column: START, text: self.start }.time(row)?;
        Ok(Entry::Request(Row { number: row, time, arrival }))
    }
}
