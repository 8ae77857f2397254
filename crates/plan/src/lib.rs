//! What a fleet would do: traces in, a simulated fleet under the same decision core as the live gateway, reports out.
//!
//! Pure: readers take `impl BufRead`, everything returns values. Files, threads, clocks and HTML belong to the binary.

pub mod economics;
pub mod perf;
pub mod sim;
pub mod trace;
