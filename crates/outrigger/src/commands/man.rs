//! `outrigger man`: manual pages from the same words as `--help`, one for each command.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap_mangen::Man;

use super::{Exit, cli, write_out};

/// Print the manual page, or write one for each command into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "To read it now:               outrigger man | man -l -
To install, for you alone:    outrigger man ~/.local/share/man/man1
To install, for everybody:    sudo outrigger man /usr/local/share/man/man1

Then `man outrigger` and `man outrigger-serve` work (where they do not, add the folder above man1 to MANPATH).")]
pub(super) struct Args {
    /// Write outrigger.1, outrigger-serve.1 and so on into this folder, which is made where it is not there.
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Exit {
    let Some(dir) = &args.dir else { return page() };
    match pages(dir) {
        Ok(count) => {
            eprintln!("{count} pages are in {}", dir.display());
            Exit::Yes
        }
        Err(e) => {
            eprintln!("error: cannot write into {}: {e}\n  help: give a folder that you may write into", dir.display());
            Exit::Environment
        }
    }
}

fn page() -> Exit {
    let mut page = Vec::new();
    match Man::new(cli().disable_help_subcommand(true)).render(&mut page) {
        Ok(()) => write_out(&String::from_utf8_lossy(&page)),
        Err(e) => {
            eprintln!("error: cannot make the page: {e}");
            Exit::Environment
        }
    }
}

/// How many there are.
fn pages(dir: &Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(cli(), dir)?;
    let is_ours = |name: &str| name.starts_with("outrigger") && name.ends_with(".1");
    let names = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_str().is_some_and(is_ours)).count())
}
