//! The bill as it came: lines that somebody typed, or an export in the FinOps Open Cost and Usage Specification (FOCUS,
//! <https://focus.finops.org>), which all large providers write.
//!
//! Only what ties a bill to a plan is read: `BilledCost` and `ServiceCategory`. Categories that hold more than one of
//! our kinds (compute that is not GPUs) end up in the remainder, where they are seen.

use std::collections::BTreeMap;

use outrigger_core::units::NanoUsd;

use super::csv::Table;

/// What a line of the bill pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InvoiceKind {
    Gpu,
    Tokens,
    Egress,
    Storage,
    Other,
}

impl InvoiceKind {
    pub const ALL: [Self; 5] = [Self::Gpu, Self::Tokens, Self::Egress, Self::Storage, Self::Other];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Tokens => "tokens",
            Self::Egress => "egress",
            Self::Storage => "storage",
            Self::Other => "other",
        }
    }

    fn of_focus(category: &str) -> Self {
        match category.to_ascii_lowercase().as_str() {
            "compute" => Self::Gpu,
            "ai and machine learning" => Self::Tokens,
            "networking" => Self::Egress,
            "storage" => Self::Storage,
            _ => Self::Other,
        }
    }
}

/// A month's bill by kind; empty without one.
pub type Invoice = BTreeMap<InvoiceKind, NanoUsd>;

/// Reads an export; the fault has its line.
pub fn read_focus(text: &str) -> Result<Invoice, String> {
    let table = Table::read(text);
    for name in ["BilledCost", "ServiceCategory"] {
        if !table.has(name) {
            return Err(format!("line 1: there is no column {name}; export the bill in FOCUS with its header"));
        }
    }
    let mut invoice = Invoice::new();
    for (line, cells) in &table.rows {
        let cell = table.cell(cells, "BilledCost");
        let usd = cell.parse().ok().and_then(NanoUsd::from_usd);
        let usd = usd.ok_or_else(|| format!("line {line}: BilledCost is `{cell}` and not an amount"))?;
        *invoice.entry(InvoiceKind::of_focus(table.cell(cells, "ServiceCategory"))).or_default() += usd;
    }
    Ok(invoice)
}
