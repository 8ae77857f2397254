//! `outrigger`: see [`outrigger::commands`].

/// A stream costs many small allocations, made by one thread and freed by another. The C library's allocator takes
/// twice the time for them, and keeps what a peak once needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    give_memory_back();
    outrigger::commands::main()
}

/// Lets the allocator return memory to the system as soon as it is free. Otherwise it waits for the next allocations to do
/// so, and a gateway after its peak makes none.
#[expect(unsafe_code, reason = "the allocator's options have no safe interface; it is called before there are threads")]
fn give_memory_back() {
    /// `mi_option_purge_delay` of mimalloc.h, for which the binding has no name.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}
