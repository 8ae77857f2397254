//! Whether a store keeps its word on conditions.
//!
//! Everything that keeps two publishers apart is a write under a condition. Some servers that speak S3 take the header and
//! ignore it: both writers are told that they have won. Such a store can be read, and cannot be published to.

use bytes::Bytes;

use super::{Put, Store, When, folder::fresh_id};
use crate::{Error, OWN_FOLDER};

impl Store {
    /// Four small writes that show whether conditions hold. A folder's are ours.
    pub async fn prove(&self) -> Result<(), Error> {
        match self {
            Self::Folder(_) => return Ok(()),
            Self::Web(_) => return Err(self.read_only("publish")),
            Self::Bucket(_) => {}
        }
        // A write that was done and whose answer was lost is refused the second time: that is no lie, and another try shows.
        let mut lie = self.ask_for_a_lie().await?;
        if lie.is_some() {
            lie = self.ask_for_a_lie().await?;
        }
        let Some(lie) = lie else { return Ok(()) };
        Err(Error::environment(
            format!(
                "{self} cannot be published to: {lie}, so that two publishers would both be told that they have won"
            ),
            "use a store whose conditional writes hold (S3's If-None-Match and If-Match); reading from this one is no problem",
        ))
    }

    async fn ask_for_a_lie(&self) -> Result<Option<&'static str>, Error> {
        let id = fresh_id().map_err(|e| Error::environment(e.to_string(), "run it again"))?;
        let object = format!("{OWN_FOLDER}/probe/{id}");
        let lie = self.lie_about(&object).await;
        self.delete(&object).await?;
        lie
    }

    async fn lie_about(&self, object: &str) -> Result<Option<&'static str>, Error> {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let Put::Done(first) = self.put(object, &text("one"), &When::Absent).await? else {
            return Ok(Some("it says of an object that was never written that it is there"));
        };
        if self.put(object, &text("two"), &When::Absent).await? != Put::Refused {
            return Ok(Some("it wrote an object twice that was to be written only where there is none"));
        }
        let Put::Done(_) = self.put(object, &text("three"), &When::Is(first.clone())).await? else {
            return Ok(Some("it refused a write over the very object that it had written"));
        };
        if self.put(object, &text("four"), &When::Is(first)).await? != Put::Refused {
            return Ok(Some("it wrote over an object that was not the one of the condition"));
        }
        let there = self.whole(object, 100).await?;
        Ok((there.is_none_or(|(bytes, _)| bytes != b"three")).then_some("what it refused to write is there"))
    }
}
