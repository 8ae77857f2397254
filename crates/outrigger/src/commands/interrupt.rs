//! Work that Ctrl-C ends, for commands that wait for others.

use std::time::Duration;

use super::Exit;

/// For tasks that have to be dropped.
const LAST_WORDS: Duration = Duration::from_millis(500);

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
    // What is dropped ends what it has started, such as processes; a lookup that hangs must not keep this one.
    runtime.shutdown_timeout(LAST_WORDS);
    exit
}
