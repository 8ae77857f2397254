//! `cargo run -p xtask -- gates [NAME…]`: what CI asks of the repository as a whole and no compiler checks.
//!
//! The standard library and `git ls-files` are enough for all of it, so that the gates build in a second and run
//! before anything else has compiled. Exit codes: 0 all passed, 1 a gate found something, 2 usage.

mod gates;
mod tree;

use std::process::ExitCode;

use anyhow::Result;
use gates::GATES;
use tree::Tree;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(("gates", wanted)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return Ok(usage());
    };
    if wanted.iter().any(|name| !GATES.iter().any(|gate| gate.name == name)) {
        return Ok(usage());
    }
    let chosen: Vec<_> =
        GATES.iter().filter(|gate| wanted.is_empty() || wanted.iter().any(|w| w == gate.name)).collect();

    let tree = Tree::of_repository()?;
    let mut failed = 0;
    for gate in &chosen {
        let faults = (gate.check)(&tree);
        if faults.is_empty() {
            continue;
        }
        failed += 1;
        println!("gate {}: {}", gate.name, gate.rule);
        for fault in &faults {
            println!("  {fault}");
        }
    }
    println!("{} gates passed, {failed} failed", chosen.len() - failed);
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn usage() -> ExitCode {
    eprintln!("usage: cargo run -p xtask -- gates [NAME…]\n");
    for gate in GATES {
        eprintln!("  {:<10} {}", gate.name, gate.rule);
    }
    ExitCode::from(2)
}
