//! What a complete answer says: its model, usage, finish reasons, or the error it is in spite of its 200.
//!
//! The body is read in full even when nothing of it is changed, because an answer that is cut or malformed must not
//! reach a client while another backend could still give a whole one.

use std::ops::Range;

use bytes::Bytes;

use crate::endpoint::{Dialect, Endpoint};
use crate::error::UpstreamError;
use crate::json;
use crate::stream::{Answer, Finish, Usage, is_name};

/// What a complete body says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BodyView {
    /// The name the backend gave.
    pub model: Option<String>,
    /// Its value in the body, quotes included.
    pub model_span: Option<Range<usize>>,
    pub usage: Option<Usage>,
    pub error: Option<UpstreamError>,
    /// One per choice that has one.
    pub finishes: Vec<Finish>,
}

/// A body that is not what an engine sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    #[error("the backend sent a malformed body: {0}")]
    Malformed(json::Fault),
}

/// Reads a complete body of a 2xx answer. One that may be anything, such as sound, is not judged.
pub fn inspect_body(endpoint: Endpoint, body: &[u8]) -> Result<BodyView, BodyFault> {
    let is_opaque = endpoint.dialect() == Dialect::Opaque;
    match read_json(body) {
        Err(_) if is_opaque => Ok(BodyView::default()),
        read => read,
    }
}

fn read_json(body: &[u8]) -> Result<BodyView, BodyFault> {
    if let Err(error) = std::str::from_utf8(body) {
        return Err(BodyFault::Malformed(json::Fault::NotUtf8 { offset: error.valid_up_to() }));
    }
    let answer = Answer::read(body).map_err(BodyFault::Malformed)?;
    Ok(BodyView {
        model: answer.model().map(std::borrow::Cow::into_owned),
        model_span: answer.model_span(body),
        usage: answer.usage(),
        error: answer.error(body),
        finishes: answer.finishes(),
    })
}

/// The body with `name` as its model; the same bytes if that is its name already, or it has none.
pub fn with_model(body: &Bytes, view: &BodyView, name: &str) -> Bytes {
    match &view.model_span {
        Some(span) if !is_name(&body[span.clone()], name) => json::splice_string(body, span, name).into(),
        _ => body.clone(),
    }
}
