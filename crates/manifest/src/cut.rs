//! Where a file is cut into chunks.
//!
//! Files that nothing is known of are cut every 16 MiB. A fixed grid would lose everything behind a header that grew by a
//! byte, so that `.safetensors` files are cut at the end of the header and then where tensors begin: small tensors are
//! taken together up to 16 MiB, large ones cut from their own beginning. Cutting by content would find more, and needs a
//! chunk store and two million chunks for 141 GB; whole files under their own names can be read by everybody's tools.

use crate::safetensors::Layout;

/// No chunk is longer.
pub const LONGEST: u32 = 16 << 20;

/// How a file was cut, as its manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    Fixed,
    Safetensors,
}

impl Chunker {
    pub const ALL: [Self; 2] = [Self::Fixed, Self::Safetensors];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed/1",
            Self::Safetensors => "safetensors/1",
        }
    }
}

/// The lengths of the chunks of `size` bytes, every 16 MiB.
pub fn fixed(size: u64) -> Vec<u32> {
    let mut cut = Vec::new();
    split(size, &mut cut);
    cut
}

/// The lengths of the chunks of a file of `size` bytes with this layout.
pub fn at_tensors(layout: &Layout, size: u64) -> Vec<u32> {
    let mut cut = Vec::new();
    split(layout.data, &mut cut);
    // What lies between two tensors belongs to the first; before all, to nobody.
    let mut edges = vec![layout.data];
    edges.extend(layout.tensors.iter().copied());
    edges.push(size);
    edges.dedup();
    let mut group = 0;
    for pair in edges.windows(2) {
        let len = pair[1] - pair[0];
        if group + len > u64::from(LONGEST) {
            split(group, &mut cut);
            group = 0;
        }
        if len > u64::from(LONGEST) {
            split(len, &mut cut);
        } else {
            group += len;
        }
    }
    split(group, &mut cut);
    cut
}

fn split(mut len: u64, cut: &mut Vec<u32>) {
    while len > 0 {
        let piece = u32::try_from(len).unwrap_or(u32::MAX).min(LONGEST);
        cut.push(piece);
        len -= u64::from(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn tensors_are_grouped_and_large_ones_cut_from_their_beginning() {
        let data = 100;
        let mut at = data;
        let tensors = [3 * MIB, 5 * MIB, 9 * MIB, 40 * MIB, 1].map(|len| {
            at += len;
            at - len
        });
        let layout = Layout { data, tensors: tensors.to_vec() };
        let mib = 1 << 20;
        assert_eq!(at_tensors(&layout, at), [100, 8 * mib, 9 * mib, 16 * mib, 16 * mib, 8 * mib, 1]);
    }

    #[test]
    fn a_longer_header_moves_only_its_own_chunk() {
        let tensors = |data: u64| Layout { data, tensors: (0..50).map(|i| data + i * 7 * MIB).collect() };
        let short = at_tensors(&tensors(1_000), 1_000 + 350 * MIB);
        let long = at_tensors(&tensors(1_001), 1_001 + 350 * MIB);
        assert_eq!(short[1..], long[1..]);
        assert_ne!(short[0], long[0]);
    }

    #[test]
    fn an_empty_file_has_no_chunk() {
        assert!(fixed(0).is_empty());
    }

    proptest! {
        #[test]
        fn chunks_cover_the_file_and_are_short_enough(
            data in 8_u64..40 * MIB,
            lens in proptest::collection::vec(0_u64..40 * MIB, 0..30),
            rest in 0_u64..3,
        ) {
            let mut at = data;
            let tensors = lens.iter().map(|len| { at += len; at - len }).collect();
            let size = at + rest;
            for cut in [at_tensors(&Layout { data, tensors }, size), fixed(size)] {
                prop_assert_eq!(cut.iter().map(|len| u64::from(*len)).sum::<u64>(), size);
                prop_assert!(cut.iter().all(|len| (1..=LONGEST).contains(len)));
            }
        }
    }
}
