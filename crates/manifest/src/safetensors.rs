//! Where the tensors of a `.safetensors` file lie, from its header and nothing else.
//!
//! The layout is that of the format's own description (huggingface/safetensors, README): eight bytes of little-endian
//! length, that many bytes of JSON, then the data; offsets count from the start of the data. The header comes from
//! outside and may say anything, so that every number is checked against the file's size before it is used. Names, types
//! and shapes are passed over: only places are needed to cut, and a header of a hundred thousand tensors costs no more
//! than its places.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The format's own limit.
pub const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes before the header.
pub const PREFIX: u64 = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("it is shorter than its header")]
    Short,
    #[error("its header is longer than 100,000,000 bytes")]
    Long,
    #[error("its header is not the JSON of tensors: {0}")]
    Json(String),
    #[error("a tensor ends before it begins, or behind the end of the file")]
    Range,
    #[error("two tensors overlap")]
    Overlap,
}

/// Where the data begins and each tensor with it, in bytes from the start of the file; ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data: u64,
    pub tensors: Vec<u64>,
}

/// How long the header is, from the first eight bytes of a file of `size` bytes.
pub fn header_len(prefix: [u8; 8], size: u64) -> Result<usize, HeaderFault> {
    let len = u64::from_le_bytes(prefix);
    if len > LONGEST_HEADER {
        return Err(HeaderFault::Long);
    }
    if len + PREFIX > size {
        return Err(HeaderFault::Short);
    }
    usize::try_from(len).map_err(|_| HeaderFault::Long)
}

/// Where the tensors of a file of `size` bytes begin.
pub fn layout(header: &[u8], size: u64) -> Result<Layout, HeaderFault> {
    let data = PREFIX + header.len() as u64;
    let room = size.checked_sub(data).ok_or(HeaderFault::Short)?;
    let Places(mut places) = serde_json::from_slice(header).map_err(|e| HeaderFault::Json(e.to_string()))?;
    places.sort_unstable();
    let mut last_end = 0;
    for &(begin, end) in &places {
        if begin > end || end > room {
            return Err(HeaderFault::Range);
        }
        if begin < last_end {
            return Err(HeaderFault::Overlap);
        }
        last_end = end;
    }
    Ok(Layout { data, tensors: places.into_iter().map(|(begin, _)| data + begin).collect() })
}

/// A tensor as the header names it; its place in bytes from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub begin: u64,
    pub end: u64,
}

/// The tensors of a file of `size` bytes by their names, ascending, for whoever compares two files.
pub fn tensors(header: &[u8], size: u64) -> Result<Vec<Named>, HeaderFault> {
    #[derive(Deserialize)]
    struct Raw {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: (u64, u64),
    }
    let Layout { data, .. } = layout(header, size)?;
    let json = |e: serde_json::Error| HeaderFault::Json(e.to_string());
    let values: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(json)?;
    let tensors = values.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, value)| {
        let Raw { dtype, shape, data_offsets: (begin, end) } = serde_json::from_value(value).map_err(json)?;
        Ok(Named { name, dtype, shape, begin: data + begin, end: data + end })
    });
    tensors.collect()
}

struct Places(Vec<(u64, u64)>);

#[derive(Deserialize)]
struct Tensor {
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Places;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
                let mut places = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        places.push(map.next_value::<Tensor>()?.data_offsets);
                    }
                }
                Ok(Places(places))
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &[u8] = br#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;

    #[test]
    fn tensors_are_found_in_the_order_of_their_places() {
        let data = 8 + TWO.len() as u64;
        assert_eq!(layout(TWO, data + 16), Ok(Layout { data, tensors: vec![data, data + 8] }));
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let data = 8 + TWO.len() as u64;
        assert_eq!(layout(TWO, data + 15), Err(HeaderFault::Range));
        assert_eq!(layout(TWO, 7), Err(HeaderFault::Short));
        let overlap = br#"{"a":{"data_offsets":[0,9]},"b":{"data_offsets":[8,16]}}"#;
        assert_eq!(layout(overlap, 1_000), Err(HeaderFault::Overlap));
        let backwards = br#"{"a":{"data_offsets":[9,8]}}"#;
        assert_eq!(layout(backwards, 1_000), Err(HeaderFault::Range));
        for text in
            ["", "[]", "{", r#"{"a":{}}"#, r#"{"a":{"data_offsets":[-1,2]}}"#, r#"{"a":{"data_offsets":[1e99,2]}}"#]
        {
            assert!(matches!(layout(text.as_bytes(), 1_000), Err(HeaderFault::Json(_))), "{text}");
        }
        let deep = format!("{{\"__metadata__\":{}", "[".repeat(100_000));
        assert!(matches!(layout(deep.as_bytes(), u64::MAX), Err(HeaderFault::Json(_))));
    }

    #[test]
    fn a_length_is_believed_only_within_the_file() {
        assert_eq!(header_len(16_u64.to_le_bytes(), 24), Ok(16));
        assert_eq!(header_len(16_u64.to_le_bytes(), 23), Err(HeaderFault::Short));
        assert_eq!(header_len(u64::MAX.to_le_bytes(), u64::MAX), Err(HeaderFault::Long));
    }

    proptest! {
        #[test]
        fn no_header_panics(header in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            drop(layout(&header, size));
        }

        /// One byte of a good header changed: any answer, and never a tensor outside the file.
        #[test]
        fn a_damaged_header_names_no_place_outside(at in 0..TWO.len(), byte in any::<u8>()) {
            let mut header = TWO.to_vec();
            header[at] = byte;
            let size = 8 + header.len() as u64 + 16;
            if let Ok(found) = layout(&header, size) {
                prop_assert!(found.tensors.iter().all(|t| (found.data..=size).contains(t)));
            }
        }
    }
}
