//! Keys that are wrong in one place each. The checksum is computed here once more, apart from the product's code.

use anyhow::{Context, Result};
use sluice_types::api_key::ApiKey;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The same key id with another secret and the right checksum.
///
/// # Errors
/// If `text` is no key.
pub fn with_other_secret(text: &str) -> Result<String> {
    let (body, _) = text.rsplit_once('_').context("a key has four parts")?;
    let (front, secret) = body.rsplit_once('_').context("a key has four parts")?;
    let other: String = secret.chars().map(|c| if c == 'a' { 'b' } else { 'a' }).collect();
    let body = format!("{front}_{other}");
    let made = format!("{body}_{}", checksum(&body));
    // Ours to prove: the product must look it up, not drop it as a typo.
    made.parse::<ApiKey>().context("the key made here is well-formed")?;
    Ok(made)
}

/// The same key with a wrong checksum.
///
/// # Errors
/// If `text` is no key.
pub fn with_bad_checksum(text: &str) -> Result<String> {
    let (body, crc) = text.rsplit_once('_').context("a key has four parts")?;
    let other: String = crc.chars().map(|c| if c == 'a' { 'b' } else { 'a' }).collect();
    Ok(format!("{body}_{other}"))
}

/// A well-formed key that nobody has.
pub fn unknown() -> String {
    ApiKey::generate("dev").expose()
}

fn checksum(body: &str) -> String {
    let crc = u64::from(crc32fast::hash(body.as_bytes()));
    (0..7).rev().map(|digit| char::from(ALPHABET[(crc >> (5 * digit) & 31) as usize])).collect()
}
