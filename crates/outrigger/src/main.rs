//! `outrigger`: see [`outrigger::commands`].

fn main() -> std::process::ExitCode {
    outrigger::commands::main()
}
