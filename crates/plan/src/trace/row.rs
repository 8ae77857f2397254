//! What all formats come down to: a request with its time as the file has it.

use super::{
    Arrival,
    fault::{TraceFault, shown},
    models::Models,
    number::{self, Bad},
};
use outrigger_core::units::{Nanos, Tokens};

/// One request of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub number: u64,
    /// Nanoseconds since 1970, or since whatever the file counts from.
    pub time: i64,
    /// Its `at` is not known before the earliest row is.
    pub arrival: Arrival,
}

/// A field with the name it has in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'f> {
    pub column: &'f str,
    pub text: &'f [u8],
}

impl Field<'_> {
    pub(super) fn tokens(self, row: u64) -> Result<Tokens, TraceFault> {
        self.read(row, number::tokens).map(Tokens)
    }

    pub(super) fn time(self, row: u64) -> Result<i64, TraceFault> {
        self.read(row, number::instant)
    }

    pub(super) fn nanos(self, row: u64, places: u32) -> Result<i64, TraceFault> {
        self.read(row, |text| number::nanos(text, places))
    }

    pub(super) fn real(self, row: u64) -> Result<f64, TraceFault> {
        self.read(row, number::real)
    }

    /// Empty means `absent`.
    pub(super) fn flag(self, row: u64, absent: bool) -> Result<bool, TraceFault> {
        match number::unquoted(self.text) {
            b"" => Ok(absent),
            b"true" | b"True" | b"TRUE" | b"t" | b"1" => Ok(true),
            b"false" | b"False" | b"FALSE" | b"f" | b"0" => Ok(false),
            other => {
                let message = format!("{} is neither true nor false", shown(other));
                Err(TraceFault::new(row, message, "write true or false").in_column(self.column))
            }
        }
    }

    pub(super) fn model(self, row: u64, models: &mut Models) -> Result<Option<u16>, TraceFault> {
        models.number(row, self.column, self.text)
    }

    fn read<T>(self, row: u64, parse: impl FnOnce(&[u8]) -> Result<T, Bad>) -> Result<T, TraceFault> {
        parse(self.text).map_err(|bad| bad.fault(row, self.column, self.text))
    }
}

/// An arrival whose time is still to be filled in.
pub(super) fn request(prompt_tokens: Tokens, output_tokens: Tokens) -> Arrival {
    Arrival { at: Nanos::ZERO, model: None, prompt_tokens, output_tokens, session: None, stream: true }
}

/// The number of a session: the same for the same parts in every file, run and build (FNV-1a, 64 bits).
pub(super) fn session(parts: &[&[u8]]) -> Option<u64> {
    if parts.iter().all(|part| part.is_empty()) {
        return None;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    for part in parts {
        part.iter().copied().for_each(&mut add);
        add(0);
    }
    Some(hash)
}
