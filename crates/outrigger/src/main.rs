//! `outrigger`: see [`outrigger::commands`].

use std::{thread, time::Duration};

/// A stream costs many small allocations, made by one thread and freed by another. The C library's allocator takes
/// twice the time for them, and keeps what a peak once needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    give_memory_back();
    outrigger::commands::main(collect_own)
}

/// Lets go of what belongs to this thread and was freed by others. The thread of [`give_memory_back`] cannot do that for
/// it, and a thread that has nothing to allocate never does by itself: after a thousand clients who read nothing, 115 MiB
/// stayed behind.
#[expect(unsafe_code, reason = "the allocator has no safe interface for this; it takes no pointers")]
fn collect_own() {
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Lets memory go back to the system a second after it was freed. By itself the allocator does so when something is
/// allocated, and a gateway after its peak allocates nothing.
#[expect(unsafe_code, reason = "the allocator has no safe interface for this; both functions take no pointers")]
fn give_memory_back() {
    /// `mi_option_purge_delay` of mimalloc.h, for which the binding has no name, in milliseconds; ten times that for what
    /// it gives back as a whole.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // Before there are threads.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 100) };
    let collect = || {
        loop {
            thread::sleep(Duration::from_secs(1));
            unsafe { libmimalloc_sys::mi_collect(false) };
        }
    };
    // Without the thread memory is kept, and nothing else is lost.
    drop(thread::Builder::new().name("memory".to_owned()).spawn(collect));
}
