//! NO_COLOR and its relatives, on a terminal and off it.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use super::BINARY;

/// What a command prints to a terminal (all three streams are one), with these variables and no others that matter.
fn on_a_terminal(args: &[&str], variables: &[(&str, &str)]) -> String {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs: OwnedFd = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let stream = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = Command::new(BINARY);
    command.args(args).current_dir("tests/cli/errors.in").stdin(stream()).stdout(stream()).stderr(stream());
    command.env_clear().env("TERM", "xterm").envs(variables.iter().copied());
    let mut child = command.spawn().unwrap();
    // Both hold the terminal open.
    drop((command, theirs));
    let reader = thread::spawn(move || {
        let mut shown = Vec::new();
        // The terminal's end is an error here, once all who held the other side have gone.
        File::from(ours).read_to_end(&mut shown).ok();
        String::from_utf8_lossy(&shown).into_owned()
    });
    child.wait().unwrap();
    reader.join().unwrap()
}

fn off_a_terminal(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .current_dir("tests/cli/errors.in")
        .env_clear()
        .env("TERM", "xterm")
        .envs(variables.iter().copied());
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

const ESCAPE: char = '\u{1b}';

/// Each prints colours or moves the cursor where it may.
const COLOURED: [&[&str]; 5] = [
    &["--help"],
    &["chekc"],
    &["check", "unknown-key.yaml"],
    &["serve", "--fleet", "unknown-key.yaml"],
    &["demo", "--for", "2s"],
];

#[test]
fn a_terminal_gets_colours_unless_it_asks_for_none() {
    for args in COLOURED {
        assert!(on_a_terminal(args, &[]).contains(ESCAPE), "{args:?}");
        for no in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            let shown = on_a_terminal(args, &[no]);
            assert!(!shown.is_empty() && !shown.contains(ESCAPE), "{args:?} with {no:?}: {shown}");
        }
    }
}

#[test]
fn what_is_no_terminal_gets_escapes_only_when_it_forces_them() {
    for args in COLOURED {
        let shown = off_a_terminal(args, &[]);
        assert!(!shown.is_empty() && !shown.contains(ESCAPE), "{args:?}: {shown}");
    }
    for args in &COLOURED[..4] {
        assert!(off_a_terminal(args, &[("CLICOLOR_FORCE", "1")]).contains(ESCAPE), "{args:?}");
    }
    // There is no cursor to move in a file, whatever is forced.
    let demo = off_a_terminal(COLOURED[4], &[("CLICOLOR_FORCE", "1")]);
    assert!(!demo.contains(ESCAPE), "{demo}");
}

#[test]
fn an_empty_no_color_asks_for_nothing() {
    assert!(on_a_terminal(&["check", "unknown-key.yaml"], &[("NO_COLOR", "")]).contains(ESCAPE));
}
