//! A checksum over a multiset of records, the same in any order: the sum of a 128-bit hash per record.

/// What was seen of a stream of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Records.
    pub records: u64,
    /// Logical bytes: keys, values, headers.
    pub bytes: u64,
    /// Sum of the hashes of key and value.
    pub sum: u128,
}

impl Digest {
    /// Takes in one record; `headers_bytes` counts names and values of the client's headers.
    pub fn add(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers_bytes: u64) {
        self.records += 1;
        self.bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64 + headers_bytes;
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    /// Takes in another digest.
    pub fn merge(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Hash of one record's key and value; null and empty differ.
pub fn hash(key: Option<&[u8]>, value: Option<&[u8]>) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in [key, value] {
        match part {
            None => {
                hasher.update(&[0]);
            }
            Some(bytes) => {
                hasher.update(&[1]);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        }
    }
    let bytes = hasher.finalize();
    u128::from_le_bytes(bytes.as_bytes()[..16].try_into().expect("16 of 32 bytes"))
}
