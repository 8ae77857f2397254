//! What a fleet costs, on one cloud or on several, and whether changing it is worth it.
//!
//! In: a [`Scenario`] with its prices looked up. Out: a [`Plan`], with every figure as a [`Figure`] that carries the
//! formula it came from. `docs/economics.md` derives each formula; it is written so that a second implementation can be
//! made from it, and a test holds the two together to the cent. So money is integer nano-USD, time is integer seconds,
//! shares are integer parts of a million, and each division rounds once, half up.
//!
//! The options are few enough (patterns times pairs of clouds) to be priced one by one. Searching the whole book for
//! the cheapest fleet is another question, answered by [`optimize`].
//!
//! Edges: an option that cannot be priced or may not be taken stays in the list with its reason; a price that is not
//! known is never zero.

mod book;
mod capacity;
mod csv;
mod design;
mod egress;
mod evaluate;
mod figure;
mod focus;
mod optimize;
mod plan;
mod proof;
mod scenario;
mod sensitivity;
mod stale;
mod verdict;

pub use book::{Book, Dropped, Hosted as HostedRow, Offer, age_days};
pub use capacity::{Fit, Need, Shape, slots};
pub use design::{Design, Kind, Leg, Mode};
pub use evaluate::{EdgeCost, Evaluated, Factors, Fractile};
pub use figure::{Figure, Unit, cents, dollars};
pub use focus::{Invoice, InvoiceKind, read_focus};
pub use optimize::{Found, Infeasible, Optimum, Pick, optimize};

/// The search by itself, without prices and names.
pub mod search {
    pub use super::optimize::{Machine, Pair, Target, cheapest};
}

pub use plan::{Barred, Choice, Mitigation, Plan, Tie, plan};
pub use proof::{Machines, Stage, closed_wait_p95, stages};
pub use scenario::{
    Candidate, Commitment, Constraints, Demand, End, Flow, Home, HostedOffer, Interconnect, Level, Migration, Model,
    OtherCost, People, Point, Profile, Scenario, Slo, Today, TodayPool, Weights,
};
pub use sensitivity::{Flip, Input, WrongIf};
pub use stale::{Staleness, staleness};
pub use verdict::{Rule, Verdict};

/// Hours of a month, by convention.
pub const MONTH_HOURS: u64 = 730;
