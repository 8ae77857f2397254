//! SHA-256 of a file, and with it of each of its parts, in one pass.
//!
//! A store that is spoken to without TLS notices a bit that flips on the way by the SHA-256 of each part, which the request
//! has to name before the part follows. Two hashes over the same bytes differ in their state alone. One of them keeps a
//! processor waiting most of the time, since each round needs the one before; with the second one's rounds in these gaps, and
//! the message schedule done once for both, it costs a third of the first. That is done with the instructions of x86-64 for
//! SHA-256; on other processors the two are computed one after the other.
//!
//! The function is that of FIPS 180-4, sections 5.1.1, 5.3.3 and 6.2; the order of the instructions follows Gulley et al.,
//! *Intel SHA Extensions* (2013). Everything that needs one state at a time is `sha2`'s.

use sha2::{Digest as _, Sha256, block_api::compress256};

/// Bytes that are taken in at once.
const BLOCK: usize = 64;

/// The state before the first block: section 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The SHA-256 of a file that comes piece by piece.
#[derive(Clone, Debug)]
pub enum FileHash {
    Whole(Sha256),
    InParts(InParts),
}

impl FileHash {
    /// With `part_size`, in bytes, also of each part of that size and of the shorter last one. It has to be a multiple of 64.
    pub fn new(part_size: Option<u64>) -> Self {
        part_size.map_or_else(|| Self::Whole(Sha256::new()), |size| Self::InParts(InParts::new(size)))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Whole(whole) => whole.update(bytes),
            Self::InParts(both) => both.update(bytes),
        }
    }

    /// The file's, and those of its parts where they were asked for.
    pub fn finalize(self) -> ([u8; 32], Vec<[u8; 32]>) {
        match self {
            Self::Whole(whole) => (whole.finalize().into(), Vec::new()),
            Self::InParts(both) => both.finalize(),
        }
    }
}

/// Two hashes side by side: of all bytes, and of those since the last part began.
#[derive(Clone, Debug)]
pub struct InParts {
    part_size: u64,
    whole: [u32; 8],
    part: [u32; 8],
    /// Bytes so far.
    len: u64,
    /// The bytes behind the last whole block, in both hashes: parts begin where blocks do.
    rest: [u8; BLOCK],
    parts: Vec<[u8; 32]>,
}

impl InParts {
    fn new(part_size: u64) -> Self {
        assert!(part_size > 0 && part_size.is_multiple_of(BLOCK as u64), "parts begin where blocks do");
        Self { part_size, whole: START, part: START, len: 0, rest: [0; BLOCK], parts: Vec::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.part_size - self.len % self.part_size;
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.take(now);
            if self.len.is_multiple_of(self.part_size) {
                let part = std::mem::replace(&mut self.part, START);
                self.parts.push(end(part, self.part_size, &[]));
            }
            bytes = later;
        }
    }

    /// Bytes of one part.
    fn take(&mut self, mut bytes: &[u8]) {
        let held = self.held();
        self.len += bytes.len() as u64;
        if held > 0 {
            let (fill, behind) = bytes.split_at(bytes.len().min(BLOCK - held));
            self.rest[held..held + fill.len()].copy_from_slice(fill);
            if held + fill.len() < BLOCK {
                return;
            }
            compress_both(&mut self.whole, &mut self.part, &[self.rest]);
            bytes = behind;
        }
        let (blocks, rest) = bytes.as_chunks();
        compress_both(&mut self.whole, &mut self.part, blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// Bytes in `rest`.
    fn held(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }

    fn finalize(mut self) -> ([u8; 32], Vec<[u8; 32]>) {
        let rest = &self.rest[..self.held()];
        let in_part = self.len % self.part_size;
        if in_part > 0 {
            self.parts.push(end(self.part, in_part, rest));
        }
        (end(self.whole, self.len, rest), self.parts)
    }
}

/// The hash of `len` bytes, of which `rest` are not in the state: section 5.1.1.
fn end(mut state: [u32; 8], len: u64, rest: &[u8]) -> [u8; 32] {
    let mut last = [0; 2 * BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    // The length in bits takes eight bytes.
    let whole = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
    last[whole - 8..whole].copy_from_slice(&(len * 8).to_be_bytes());
    compress256(&mut state, last[..whole].as_chunks().0);
    let mut hash = [0; 32];
    hash.as_chunks_mut()
        .0
        .iter_mut()
        .zip(state)
        .for_each(|(bytes, word): (&mut [u8; 4], _)| *bytes = word.to_be_bytes());
    hash
}

/// Whether a second hash costs a third of the first. Elsewhere it costs as much, and is better left until it is needed.
pub fn is_side_by_side() -> bool {
    #[cfg(target_arch = "x86_64")]
    let is = is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
    #[cfg(not(target_arch = "x86_64"))]
    let is = false;
    is
}

/// Takes the same blocks into two states.
fn compress_both(one: &mut [u32; 8], other: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
    #[cfg(target_arch = "x86_64")]
    if is_side_by_side() {
        #[expect(
            unsafe_code,
            reason = "the processor has the instructions, as the line above has asked it; no pointer is involved"
        )]
        unsafe {
            side_by_side::compress(one, other, blocks);
        }
        return;
    }
    compress256(one, blocks);
    compress256(other, blocks);
}

#[cfg(target_arch = "x86_64")]
mod side_by_side {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_sha256msg1_epu32,
        _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32,
    };

    use super::BLOCK;

    /// Section 4.2.2.
    #[rustfmt::skip]
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// A state as the instructions have it: words a, b, e, f and c, d, g, h, each from the highest down.
    #[derive(Clone, Copy)]
    struct Lanes {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[expect(clippy::many_single_char_names, reason = "the standard calls them so")]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn lanes([a, b, c, d, e, f, g, h]: [u32; 8]) -> Lanes {
        Lanes { abef: words([f, e, b, a]), cdgh: words([h, g, d, c]) }
    }

    #[expect(clippy::many_single_char_names, reason = "the standard calls them so")]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn state(Lanes { abef, cdgh }: Lanes) -> [u32; 8] {
        let words = |lane| {
            [
                _mm_extract_epi32::<0>(lane).cast_unsigned(),
                _mm_extract_epi32::<1>(lane).cast_unsigned(),
                _mm_extract_epi32::<2>(lane).cast_unsigned(),
                _mm_extract_epi32::<3>(lane).cast_unsigned(),
            ]
        };
        let ([f, e, b, a], [h, g, d, c]) = (words(abef), words(cdgh));
        [a, b, c, d, e, f, g, h]
    }

    /// Four words, the first one lowest.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn words(words: [u32; 4]) -> __m128i {
        let [first, second, third, fourth] = words.map(u32::cast_signed);
        _mm_set_epi32(fourth, third, second, first)
    }

    /// Section 6.2.2 for each block, four rounds at a time.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn compress(one: &mut [u32; 8], other: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
        let mut both = [lanes(*one), lanes(*other)];
        for block in blocks {
            let before = both;
            let (quads, _) = block.as_chunks::<16>();
            let quad = |at: usize| {
                let (four, _) = quads[at].as_chunks::<4>();
                words([0, 1, 2, 3].map(|at| u32::from_be_bytes(four[at])))
            };
            // The sixteen words of the schedule that the next rounds need.
            let mut w = [quad(0), quad(1), quad(2), quad(3)];
            for (n, k) in K.into_iter().enumerate() {
                let first = _mm_add_epi32(w[n % 4], words(k));
                let last = _mm_shuffle_epi32::<0x0e>(first);
                both = both.map(|Lanes { abef, cdgh }| {
                    let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, first);
                    Lanes { abef, cdgh }
                });
                both = both.map(|Lanes { abef, cdgh }| {
                    let abef = _mm_sha256rnds2_epu32(abef, cdgh, last);
                    Lanes { abef, cdgh }
                });
                if n < 12 {
                    let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|ahead| w[(n + ahead) % 4]);
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                    w[n % 4] = _mm_sha256msg2_epu32(sum, w3);
                }
            }
            for (now, before) in both.iter_mut().zip(before) {
                now.abef = _mm_add_epi32(now.abef, before.abef);
                now.cdgh = _mm_add_epi32(now.cdgh, before.cdgh);
            }
        }
        let [first, second] = both;
        (*one, *other) = (state(first), state(second));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(bytes: &[u8], part_size: u64, cuts: &[usize]) -> ([u8; 32], Vec<[u8; 32]>) {
        let mut hash = FileHash::new(Some(part_size));
        let mut left = bytes;
        for cut in cuts {
            let (now, later) = left.split_at(left.len().min(*cut));
            hash.update(now);
            left = later;
        }
        hash.update(left);
        hash.finalize()
    }

    #[test]
    fn an_empty_file_has_the_hash_of_nothing_and_no_part() {
        assert_eq!(both(&[], 64, &[]), (Sha256::digest([]).into(), vec![]));
    }

    #[test]
    fn every_length_around_a_block_is_padded_as_it_should() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..=bytes.len() {
            assert_eq!(both(&bytes[..len], 1 << 20, &[]).0, <[u8; 32]>::from(Sha256::digest(&bytes[..len])), "{len}");
        }
    }

    proptest! {
        #[test]
        fn the_hashes_are_those_of_the_file_and_of_its_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
            cuts in proptest::collection::vec(0_usize..200, 0..20),
            blocks in 1_u64..9,
        ) {
            let part_size = blocks * 64;
            let parts: Vec<[u8; 32]> = bytes.chunks(part_size as usize).map(|part| Sha256::digest(part).into()).collect();
            prop_assert_eq!(both(&bytes, part_size, &cuts), (Sha256::digest(&bytes).into(), parts));
        }

        /// From states that no file leads to soon, so that every bit of both counts.
        #[test]
        fn two_states_side_by_side_become_what_each_becomes_alone(
            states in any::<[[u32; 8]; 2]>(),
            blocks in proptest::collection::vec(any::<[[u8; 32]; 2]>(), 0..5),
        ) {
            let blocks: Vec<[u8; 64]> = blocks.iter().map(|halves| halves.concat().try_into().unwrap()).collect();
            let ([mut one, mut other], mut alone) = (states, states);
            compress_both(&mut one, &mut other, &blocks);
            for state in &mut alone {
                compress256(state, &blocks);
            }
            prop_assert_eq!([one, other], alone);
        }
    }
}
