//! The identifier of a request, for logs and headers.

use std::cell::RefCell;

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

thread_local! {
    /// Seeded by the system once: asking it for every request would be one system call in six.
    static BITS: RefCell<Xoshiro256PlusPlus> = RefCell::new(seeded());
}

fn seeded() -> Xoshiro256PlusPlus {
    let mut seed = [0; 32];
    // Without randomness from the system identifiers are not unique, which is no reason to refuse to serve.
    getrandom::fill(&mut seed).ok();
    Xoshiro256PlusPlus::from_seed(seed)
}

/// 96 random bits: no two requests of all replicas share one, and it is short enough to read out.
pub(crate) fn new() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bits = [0_u8; 12];
    BITS.with_borrow_mut(|rng| rng.fill_bytes(&mut bits));
    let mut id = String::with_capacity(4 + 2 * bits.len());
    id.push_str("req_");
    for byte in bits {
        id.push(DIGITS[usize::from(byte >> 4)].into());
        id.push(DIGITS[usize::from(byte & 15)].into());
    }
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn identifiers_are_hexadecimal_and_never_the_same() {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| (0..1_000).map(|_| new()).collect())).collect();
        let all: Vec<Vec<String>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let all: HashSet<String> = all.concat().into_iter().collect();
        assert_eq!(all.len(), 4_000);
        let is_hex = |id: &String| {
            id.strip_prefix("req_").is_some_and(|d| d.len() == 24 && d.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        assert!(all.iter().all(is_hex));
    }
}
