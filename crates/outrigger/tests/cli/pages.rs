//! Completions and manual pages, as shells and `man` would take them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use super::{BINARY, all_commands, outrigger};

#[test]
fn bash_completes_commands_flags_and_values() {
    // The last word is what is being typed.
    for (line, expect) in [
        (&["outrigger", "simu"][..], "simulate"),
        (&["outrigger", "check", "--js"], "--json"),
        (&["outrigger", "demo", "br"], "break"),
        (&["outrigger", "demo", "break", "lambda", "--fault", "black"], "blackhole"),
        (&["outrigger", "completions", "fi"], "fish"),
    ] {
        let script = r#"source <("$0" completions bash) && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1)) &&
            _outrigger outrigger "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" && printf '%s\n' "${COMPREPLY[@]}""#;
        let Output { status, stdout, stderr } =
            Command::new("bash").args(["-c", script, BINARY]).args(line).output().unwrap();
        let words = String::from_utf8(stdout).unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success() && words.lines().any(|word| word == expect), "{line:?}: {words}{stderr}");
    }
}

/// Where the machine has the other shells, they read their scripts too.
#[test]
fn shells_take_their_scripts() {
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let script = outrigger(&["completions", shell]).stdout;
        assert!(String::from_utf8_lossy(&script).contains("simulate"), "{shell}");
        let file = folder("completions").join(shell);
        fs::write(&file, script).unwrap();
        let checked = Command::new(shell).args(check).arg(&file).stdin(Stdio::null()).output();
        match checked {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(e) => assert!(shell != "bash" && e.kind() == std::io::ErrorKind::NotFound, "{shell}: {e}"),
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = folder("man").join("made/where/it/is/not");
    fs::remove_dir_all(&dir).ok();
    let output = outrigger(&["man", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let mut pages = vec!["outrigger.1".to_owned()];
    pages.extend(all_commands().iter().map(|command| format!("outrigger-{}.1", command.join("-"))));
    for page in &pages {
        let text = fs::read_to_string(dir.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("{} pages are in ", pages.len())), "{said}");
    let one = outrigger(&["man"]);
    assert!(one.status.success());
    assert_eq!(String::from_utf8_lossy(&one.stdout), fs::read_to_string(dir.join("outrigger.1")).unwrap());
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}
