//! `outrigger completions`: what a shell needs to complete commands, flags and their values.

use clap_complete::Shell;

use super::{Exit, cli, write_out};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Where it goes, for you alone (start a new shell afterwards):

  bash        outrigger completions bash > ~/.local/share/bash-completion/completions/outrigger
  zsh         outrigger completions zsh > ~/.zfunc/_outrigger
              with `fpath=(~/.zfunc $fpath)` above `compinit` in ~/.zshrc
  fish        outrigger completions fish > ~/.config/fish/completions/outrigger.fish
  powershell  outrigger completions powershell >> $PROFILE
  elvish      outrigger completions elvish >> ~/.config/elvish/rc.elv

Make the folder first where it is not there. For everybody: /usr/share/bash-completion/completions/outrigger,
/usr/share/zsh/site-functions/_outrigger, /usr/share/fish/vendor_completions.d/outrigger.fish.")]
pub(super) struct Args {
    /// Whose completions.
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli(), "outrigger", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}
