//! What S3 answers when it does not do what was asked.

use http::StatusCode;

use crate::store::xml;

/// Why a request does not get its ordinary answer.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    /// The client is gone, or is to be left alone with a broken connection.
    Broken,
}

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    pub(super) retry_after_s: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), retry_after_s: None }
    }

    pub(super) fn no_such_key(key: &str) -> Self {
        Self::new(404, "NoSuchKey", format!("there is no object {key}"))
    }

    pub(super) fn no_such_bucket(bucket: &str) -> Self {
        Self::new(404, "NoSuchBucket", format!("there is no bucket {bucket}"))
    }

    pub(super) fn no_such_upload() -> Self {
        Self::new(404, "NoSuchUpload", "the upload was completed or aborted, or never begun")
    }

    pub(super) fn precondition(which: &str) -> Self {
        let mut message = "at least one of the preconditions did not hold: ".to_owned();
        message.push_str(which);
        Self::new(412, "PreconditionFailed", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    pub(super) fn body(&self) -> String {
        format!(
            "{}<Error><Code>{}</Code><Message>{}</Message></Error>",
            xml::HEAD,
            self.code,
            xml::escaped(&self.message)
        )
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A disk in trouble is the store's own fault.
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(500, "InternalError", error.to_string())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Refused(error.into())
    }
}
