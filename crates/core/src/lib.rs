//! The decision core of Outrigger: which backend serves a request, and why.
//!
//! Everything here is a plain function of its arguments: facts about the request, the time as an integer, a random
//! number generator, and the [`State`](state::State) that was built up from observed events. There is no clock, no
//! I/O and no global randomness, so that the live gateway, the simulator and a replay run the very same code.
//!
//! The life of a request through this crate: [`admit`] asks whether its key may send one now; [`route::decide`] books
//! an attempt on one backend; the caller acts and reports each [`Event`](state::Event) back; on a failure it decides
//! again with a longer [`History`](facts::History); at the end an [`AttemptRecord`](record::AttemptRecord) per attempt
//! says what happened and what it cost.
//!
//! # Glossary
//! The same word means the same thing in the whole project.
//!
//! - **cloud**: a provider that GPUs or tokens are bought from; **pool**: GPUs that are paid for once.
//! - **backend**: one deployment of one model in one cloud, or one hosted API; what a request is sent to.
//! - **model**: what clients ask for by name; it has **tiers** in order of preference, each a **split** over backends.
//! - **attempt**: one try of one request on one backend; a **failover** is a further attempt after one that failed.
//! - **commit**: the first content that goes to the client; after it nothing is ever replayed.
//! - **TTFT**: time to first token, measured to the first event with content.
//! - **fault**: evidence against a backend; a **refusal** (429, 503) is backpressure, not a fault.
//! - **down**: hard evidence, never overridden; **suspect** and **ejected**: soft, overridden by **panic**.
//! - **probe**: a real one-token generation that decides whether a backend is (again) in use.
//! - **slow start**: a returned backend's weight grows back instead of jumping.
//! - **cut**: a stream that broke after content.
//! - **queue**: requests that wait for a place, by priority and arrival; **shed**: turned away because it is too long.
//! - **substitute**: another model than the one asked for.
//! - **overlay**: what is true only for now (a drain, other weights), on top of the fleet file.

pub mod admit;
pub mod bill;
pub mod cost;
pub mod facts;
pub mod fleet;
pub mod price;
pub mod record;
pub mod route;
pub mod state;
pub mod units;
pub mod waiting;

/// The generator that callers pass in: small, fast, serialisable, and the same on every platform.
pub type Rng = rand_xoshiro::Xoshiro256PlusPlus;
