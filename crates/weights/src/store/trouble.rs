//! Why a request to a store did not do what it was for, and asking again.
//!
//! A store that is busy, restarting or far away is the normal case: what may work a moment later is [`Trouble::Again`], and
//! whoever asked decides how often. Everything else is an answer.

use std::{fmt, time::Duration};

use crate::Error;

/// Of small objects, and of requests that stand alone.
const TRIES: u32 = 5;

/// Why a request did not bring everything.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work when asked again, at the earliest after a while.
    Again {
        why: String,
        after: Option<Duration>,
    },
    /// The store has no such object.
    Absent,
    /// The object is not the one that the condition named.
    Changed,
    Stop(Error),
}

pub(crate) fn again(why: impl Into<String>) -> Trouble {
    Trouble::Again { why: why.into(), after: None }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Stop(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again { why, .. } => f.write_str(why),
            Self::Absent => f.write_str("the store has no such object"),
            Self::Changed => f.write_str("the object is another one than before"),
            Self::Stop(error) => f.write_str(&error.message),
        }
    }
}

pub(crate) fn gave_up(tries: u32, why: &str) -> Error {
    Error::environment(
        format!("gave up after {tries} tries: {why}"),
        "check the store and the network, then run the same command again: what is there is kept",
    )
}

/// Before asking again: from a tenth of a second, doubling, at most five seconds.
pub(crate) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 << tries.min(10)).min(Duration::from_secs(5))
}

/// Asks until there is an answer, a few times.
pub(crate) async fn insist<T, F: Future<Output = Result<T, Trouble>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, Trouble> {
    let mut tries = 0;
    loop {
        tries += 1;
        match ask().await {
            Err(Trouble::Again { why, .. }) if tries == TRIES => return Err(Trouble::Stop(gave_up(tries, &why))),
            Err(Trouble::Again { after, .. }) => tokio::time::sleep(after.unwrap_or_else(|| pause(tries))).await,
            answer => return answer,
        }
    }
}
