//! The gates. Each is one function from the tree to its faults, and each fault says where it is and what to do.
//!
//! A new gate is a function, a test with a planted violation, and a line in [`GATES`].

mod apart;
mod arrows;
mod claims;
mod links;
mod named;
mod sources;
mod unsafety;

use crate::tree::Tree;

/// One line each: where, what is wrong, and what to do about it.
pub(crate) type Check = fn(&Tree) -> Vec<String>;

pub(crate) struct Gate {
    pub(crate) name: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) check: Check,
}

pub(crate) const GATES: &[Gate] = &[
    Gate { name: "arrows", rule: "crates depend only on the layers below them", check: arrows::layers },
    Gate {
        name: "purity",
        rule: "core, wire, plan, import and manifest pull in nothing that does I/O",
        check: arrows::purity,
    },
    Gate { name: "apart", rule: "the fakes and the planner share no file", check: apart::shared_files },
    Gate { name: "bans", rule: "the pure crates ban the same calls", check: sources::bans },
    Gate { name: "links", rule: "relative links in Markdown lead somewhere", check: links::links },
    Gate { name: "words", rule: "nothing unfinished, no path of one machine, no registry host", check: sources::words },
    Gate { name: "heads", rule: "a Rust file starts with what it is for", check: sources::heads },
    Gate { name: "size", rule: "a crate can be read in a day", check: sources::size },
    Gate { name: "schema", rule: "fleet.schema.json is what the Rust types say", check: named::schema },
    Gate { name: "examples", rule: "every example is introduced to its readers", check: named::examples },
    Gate { name: "heavy", rule: "heavy suites and the documents that cite them agree", check: named::heavy },
    Gate { name: "claims", rule: "what a page claims is held by a test that is there", check: claims::claims },
    Gate { name: "unsafe", rule: "unsafe code stands in named places only", check: unsafety::unsafety },
];
