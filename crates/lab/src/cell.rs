//! One cell of the table: a row in one version of HTTP, at one endpoint, as a stream or whole.

use crate::matrix::{Endpoint, Form, Protocol, Row};

#[derive(Clone, Debug)]
pub struct Cell {
    pub row: Row,
    pub protocol: Protocol,
    pub endpoint: Endpoint,
    pub form: Form,
}

impl Cell {
    /// All cells of a row.
    pub fn of(row: &Row) -> Vec<Self> {
        let mut cells = Vec::new();
        for protocol in &row.protocols {
            for endpoint in &row.endpoints {
                for form in &row.forms {
                    cells.push(Self { row: row.clone(), protocol: *protocol, endpoint: *endpoint, form: *form });
                }
            }
        }
        cells
    }

    /// `ROW/PROTOCOL/ENDPOINT/FORM`.
    pub fn id(&self) -> String {
        [&self.row.id, self.protocol.as_str(), self.endpoint.as_str(), self.form.as_str()].join("/")
    }

    /// The word for what the engine does.
    pub fn fault(&self) -> String {
        let kind = self.row.fault.as_ref().and_then(|fault| serde_json::to_value(fault.kind).ok());
        kind.and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_else(|| self.row.id.clone())
    }

    /// All that are sent.
    pub fn requests(&self) -> usize {
        (self.row.warm + self.row.before + self.row.requests) as usize
    }

    pub fn streams(&self) -> bool {
        self.form == Form::Stream
    }
}
