//! Work that Ctrl-C ends, for commands that wait for others.

use super::Exit;

/// Runs work that Ctrl-C ends.
pub(super) fn until_interrupted(work: impl Future<Output = Exit>) -> Exit {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return Exit::Environment;
        }
    };
    let exit = runtime.block_on(async {
        tokio::select! {
            exit = work => exit,
            Ok(()) = tokio::signal::ctrl_c() => {
                eprintln!("interrupted");
                Exit::Interrupted
            }
        }
    });
    // A lookup that hangs must not keep the process.
    runtime.shutdown_background();
    exit
}
