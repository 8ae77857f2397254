//! What a person sees who types a command: the help of every one, and each error with what to do next.
//!
//! The scripts are `*.trycmd` beside this file; `TRYCMD=overwrite cargo nextest run -p outrigger cli::` writes what is
//! printed now, to be read before it is kept. Those of errors run in `errors.in/`.

mod escapes;
mod pages;
mod pipes;
mod stops;

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

const BINARY: &str = env!("CARGO_BIN_EXE_outrigger");

fn outrigger(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// Runs the scripts that `glob` names.
fn scripts(glob: &str) {
    let cases = trycmd::TestCases::new();
    // What the tests' own environment holds must not show.
    cases.default_bin_path(BINARY).env("COLUMNS", "100").env("OUTRIGGER_ADMIN_TOKEN", "").case(glob);
}

#[test]
fn help_of_every_command() {
    scripts("tests/cli/help/*.trycmd");
}

#[test]
fn errors_say_what_to_do() {
    scripts("tests/cli/errors.trycmd");
}

/// Commands that hold others, and the others.
fn all_commands() -> Vec<Vec<String>> {
    fn below(path: &[String], found: &mut Vec<Vec<String>>) {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = String::from_utf8(outrigger(&args).stdout).unwrap();
        let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let names = listed.lines().take_while(|line| !line.is_empty());
        for name in names.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' ')) {
            let name = name.split_whitespace().next().unwrap();
            if name != "help" {
                let path: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
                below(&path, found);
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    below(&[], &mut found);
    found
}

#[test]
fn the_help_of_every_command_is_in_a_script() {
    let scripted: BTreeSet<String> = (std::fs::read_dir("tests/cli/help").unwrap())
        .flat_map(|entry| {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let asked = |line: &str| Some(line.strip_prefix("$ outrigger ")?.strip_suffix(" --help")?.to_owned());
            text.lines().filter_map(asked).collect::<Vec<_>>()
        })
        .collect();
    let commands = all_commands();
    assert!(commands.len() > 20, "{commands:?}");
    let unread: Vec<String> = commands.iter().map(|c| c.join(" ")).filter(|c| !scripted.contains(c)).collect();
    assert!(unread.is_empty(), "write `$ outrigger {0} --help` into tests/cli/help/{0}.trycmd: {unread:?}", unread[0]);
}

/// Scripts branch on 2 for their own fault, and a typed slip should cost one more try and no more.
#[test]
fn every_command_answers_a_wrong_flag_with_2_and_its_usage() {
    for command in all_commands() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--no-such-flag"]).collect();
        let Output { status, stdout, stderr } = outrigger(&args);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.as_slice()), (Some(2), &b""[..]), "{command:?}: {stderr}");
        assert!(stderr.contains("--no-such-flag") && stderr.contains("Usage: outrigger"), "{command:?}: {stderr}");
    }
}
