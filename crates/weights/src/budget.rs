//! A limit on what a pull or a replication may cost, across tries, kills and calls.
//!
//! A server bills what it sends, and cannot send what it was not asked for. So each request's bytes are written into a ledger,
//! and synced, before it is made; and none is made that would take the sum over the limit. Whatever happens then, a broken
//! connection, a wrong chunk, a kill, the bill is at most the ledger. It may be less: of a request that failed, all counts.
//!
//! The ledger is lines of `asked N`. A last line without its end was torn before its request was made, and is cut off. Any
//! other damage ends the call: a budget that starts anew because its ledger was lost is none.

use std::{
    fs,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use outrigger_core::{bill::Egress, units::NanoUsd};

use crate::{Error, disk};

/// What may be spent, and what bytes cost.
#[derive(Clone, Debug)]
pub struct Budget {
    pub limit: NanoUsd,
    pub egress: Egress,
}

/// What a request was refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// Counts what is asked for, where there is a budget or was one.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    budget: Option<Budget>,
    ledger: Option<Mutex<Ledger>>,
    /// A request was refused, and none is made any more: a shorter one that the rest would pay for would come after what is said
    /// of the end.
    over: AtomicBool,
    /// What this call had to ask for before anything else, and the next will have to as well.
    noted: AtomicU64,
}

#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    file: fs::File,
    len: u64,
    asked: u64,
}

impl Meter {
    /// Opens the ledger, and takes it for this process. One that is there is kept even where no limit is given: what is asked
    /// for now counts when one is given again.
    pub(crate) fn open(path: &Path, budget: Option<Budget>) -> Result<Self, Error> {
        if budget.is_none() && !path.exists() {
            return Ok(Self::default());
        }
        let mut file = disk::open_to_write(path).map_err(|e| Error::io("write", path, &e))?;
        disk::take(&file, path, &path.display().to_string())?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| Error::io("read", path, &e))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let asked = asked(&text[..whole]).ok_or_else(|| {
            Error::environment(
                format!("{} is damaged: what was spent cannot be known", path.display()),
                "look into it; deleting it starts the budget anew",
            )
        })?;
        file.set_len(whole as u64)
            .and_then(|()| file.seek(std::io::SeekFrom::End(0)))
            .and_then(|_| file.sync_all())
            .map_err(|e| Error::io("write", path, &e))?;
        disk::sync_folder_of(path)?;
        Ok(Self {
            budget,
            over: AtomicBool::new(false),
            noted: AtomicU64::new(0),
            ledger: Some(Mutex::new(Ledger { path: path.to_owned(), file, len: whole as u64, asked })),
        })
    }

    /// Before a request for so many bytes: whether it may be made. It has been counted then.
    pub(crate) fn ask(&self, bytes: u64) -> Result<Result<(), Over>, Error> {
        let Some(ledger) = &self.ledger else { return Ok(Ok(())) };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = ledger.asked.saturating_add(bytes);
        if self.is_over() || self.budget.as_ref().is_some_and(|budget| budget.egress.usd(sum.into()) > budget.limit) {
            self.over.store(true, Ordering::Relaxed);
            return Ok(Err(Over));
        }
        ledger.count(bytes)?;
        Ok(Ok(()))
    }

    /// Whether a request was refused.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more may be asked for.
    pub(crate) fn reaches(&self, bytes: u64) -> bool {
        let (Some(budget), Some((asked, _))) = (&self.budget, self.spent()) else { return true };
        budget.egress.usd(u128::from(asked) + u128::from(bytes)) <= budget.limit
    }

    /// Something small that had to be asked for before there was a ledger.
    pub(crate) fn note(&self, bytes: u64) -> Result<(), Error> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        self.noted.fetch_add(bytes, Ordering::Relaxed);
        ledger.lock().unwrap_or_else(PoisonError::into_inner).count(bytes)
    }

    /// All that was asked for, by this call and those before, and what that costs at most; `None` without a budget.
    pub(crate) fn spent(&self) -> Option<(u64, NanoUsd)> {
        let asked = self.ledger.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).asked;
        Some((asked, self.budget.as_ref()?.egress.usd(asked.into())))
    }

    /// Why nothing is asked for at all.
    pub(crate) fn used_up(&self) -> Error {
        let (asked, spent) = self.spent().unwrap_or_default();
        Error::content(
            format!("the budget was used up before: {} were spent on {asked} bytes", usd(spent)),
            "what is there is kept: run the same command again with a higher --max-egress-usd",
        )
    }

    /// Why nothing more is asked for while so many bytes are missing, and what would do for them: with the manifest, which the
    /// next call has to ask for again.
    pub(crate) fn stopped(&self, missing: u64) -> Error {
        let (Some(budget), Some((asked, spent))) = (&self.budget, self.spent()) else {
            return Error::usage("there is no budget", "give --max-egress-usd");
        };
        let again = self.noted.load(Ordering::Relaxed);
        let all = budget.egress.usd(u128::from(asked) + u128::from(missing) + u128::from(again));
        Error::content(
            format!(
                "the budget of {} ends here: {} were spent on {asked} bytes, {missing} bytes are missing, and they would cost {} more",
                usd(budget.limit),
                usd(spent),
                usd(all - spent),
            ),
            format!(
                "what is there is kept: run the same command again with --max-egress-usd {} or more to have the rest",
                usd(all).trim_start_matches('$')
            ),
        )
    }
}

impl Ledger {
    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        let written = disk::append(&self.file, self.len, format!("asked {bytes}\n").as_bytes());
        self.len = written.map_err(|e| Error::io("write", &self.path, &e))?;
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, &e))?;
        self.asked = self.asked.saturating_add(bytes);
        Ok(())
    }
}

/// The sum of a ledger's whole lines; `None` where one is not one of its.
fn asked(text: &str) -> Option<u64> {
    text.lines().try_fold(0_u64, |sum, line| {
        let number = line.strip_prefix("asked ")?;
        let plain = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        sum.checked_add(number.parse().ok().filter(|_| plain)?)
    })
}

/// With as many digits as it takes to see it, rounded up: it is what to give as a limit.
fn usd(amount: NanoUsd) -> String {
    let step = if amount.0 < 1_000_000_000 { 1_000 } else { 10_000_000 };
    let up = amount.0.saturating_add(step - 1) / step * step;
    if step == 1_000 { format!("${:.6}", NanoUsd(up).as_usd()) } else { format!("${:.2}", NanoUsd(up).as_usd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Scratch;

    /// What is said of the end would otherwise be too little: a request that was made after it counts too.
    #[test]
    fn after_a_refusal_nothing_is_asked_for_that_would_still_be_paid_for() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let budget = Budget { limit: NanoUsd(100), egress: Egress::flat(NanoUsd(1_000_000_000)) };
        let meter = Meter::open(&scratch.0.join("ledger"), Some(budget)).unwrap();
        assert_eq!(meter.ask(60).unwrap(), Ok(()));
        assert_eq!(meter.ask(41).unwrap(), Err(Over));
        assert!(meter.is_over());
        assert_eq!((meter.ask(1).unwrap(), meter.spent()), (Err(Over), Some((60, NanoUsd(60)))));
    }

    #[test]
    fn a_ledger_that_says_anything_else_is_damaged() {
        assert_eq!(asked(""), Some(0));
        assert_eq!(asked("asked 1\nasked 20\n"), Some(21));
        for text in
            ["asked -1\n", "asked +1\n", "asked \n", "asked 1 2\n", "\n", "asked 99999999999999999999\n", "spent 1\n"]
        {
            assert_eq!(asked(text), None, "{text:?}");
        }
        assert_eq!(asked(&format!("asked {}\nasked 1\n", u64::MAX)), None);
    }

    #[test]
    fn amounts_are_rounded_up_to_what_can_be_given() {
        assert_eq!(usd(NanoUsd(1)), "$0.000001");
        assert_eq!(usd(NanoUsd(12_345_678)), "$0.012346");
        assert_eq!(usd(NanoUsd(1_000_000_001)), "$1.01");
        assert_eq!(usd(NanoUsd(12_690_000_000)), "$12.69");
    }
}
