//! Printing for people, by the names of the standard library's macros and without their panic.
//!
//! The standard ones panic when whoever reads has gone away, as in `outrigger check fleet.yaml 2>&1 | head -1`, and then
//! the panic is what is seen last. Declared before the commands, these are what the names mean in all of them.

macro_rules! eprint {
    ($($words:tt)*) => { $crate::commands::say::to_stderr(format_args!($($words)*)) };
}

macro_rules! eprintln {
    () => { eprint!("\n") };
    ($($words:tt)*) => { eprint!("{}\n", format_args!($($words)*)) };
}

macro_rules! println {
    ($($words:tt)*) => { $crate::commands::say::to_stdout(format_args!("{}\n", format_args!($($words)*))) };
}

use std::{fmt::Arguments, io::Write as _};

pub(crate) fn to_stderr(words: Arguments<'_>) {
    std::io::stderr().lock().write_fmt(words).ok();
}

pub(crate) fn to_stdout(words: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    out.write_fmt(words).and_then(|()| out.flush()).ok();
}
