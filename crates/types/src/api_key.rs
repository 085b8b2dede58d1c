//! API keys: `sl_{environment}_{key id}_{secret}_{crc}`.
//!
//! The prefix lets secret scanners find a leaked key; the CRC-32 of all before it makes a typo cost no look-up. The key id
//! is a uid; the secret is 160 random bits in base32. Only a keyed BLAKE3 hash of environment, id and secret is ever stored, so
//! neither the database nor the control log can be turned into keys without the hashing key, and a key works only with the
//! environment it was made for: a `live` key cannot be passed off as a `dev` one. Hashes of keys made before that bound id and
//! secret only; they still match.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

use crate::uid::KeyUid;

const SECRET_BYTES: usize = 20;
const SECRET_TEXT_LEN: usize = 32;
const CRC_TEXT_LEN: usize = 7;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Longest text that is looked at.
pub const KEY_TEXT_LEN_MAX: usize = 96;

/// A key as its holder has it. `Debug` shows only the id.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    environment: Box<str>,
    id: KeyUid,
    secret: Box<str>,
}

/// A text that is not a key: wrong form or wrong checksum. On purpose it does not tell which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse api key")]
pub struct ParseKeyError;

/// What is stored of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecretHash(pub [u8; 32]);

/// The key of the hash: 32 bytes, shared by control plane and gateways, never stored beside the hashes.
#[derive(Clone)]
pub struct HashKey(pub [u8; 32]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl ApiKey {
    /// A new key. `environment` is 1..8 characters of `a-z0-9`, e.g. `live` or `dev`.
    pub fn generate(environment: &str) -> Self {
        let mut secret = [0u8; SECRET_BYTES];
        getrandom::fill(&mut secret).expect("the operating system always has random numbers");
        Self { environment: environment.into(), id: KeyUid::random(), secret: base32(&secret).into() }
    }

    /// Its id.
    pub fn id(&self) -> KeyUid {
        self.id
    }

    /// What may be shown to recognise it.
    pub fn prefix(&self) -> String {
        format!("sl_{}_{}", self.environment, self.id)
    }

    /// The text to hand out once.
    pub fn expose(&self) -> String {
        let body = format!("sl_{}_{}_{}", self.environment, self.id, self.secret);
        let crc = crc_text(&body);
        format!("{body}_{crc}")
    }

    /// The hash to store.
    pub fn hash(&self, key: &HashKey) -> SecretHash {
        self.hash_of(key, &[self.environment.as_bytes(), b":"])
    }

    /// Whether the stored hash is this key's, in constant time.
    pub fn matches(&self, key: &HashKey, stored: &SecretHash) -> bool {
        (self.hash(key).0.ct_eq(&stored.0) | self.hash_of(key, &[]).0.ct_eq(&stored.0)).into()
    }

    fn hash_of(&self, key: &HashKey, before: &[&[u8]]) -> SecretHash {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        for part in before {
            hasher.update(part);
        }
        hasher.update(self.id.to_string().as_bytes());
        hasher.update(b":");
        hasher.update(self.secret.as_bytes());
        SecretHash(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

impl FromStr for ApiKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.len() > KEY_TEXT_LEN_MAX {
            return Err(ParseKeyError);
        }
        let (body, crc) = text.rsplit_once('_').ok_or(ParseKeyError)?;
        if crc_text(body) != crc {
            return Err(ParseKeyError);
        }
        let parts: Vec<&str> = body.split('_').collect();
        let ["sl", environment, id, secret] = parts.as_slice() else {
            return Err(ParseKeyError);
        };
        let environment_ok = (1..=8).contains(&environment.len())
            && environment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !environment_ok || secret.len() != SECRET_TEXT_LEN || !secret.bytes().all(|b| ALPHABET.contains(&b)) {
            return Err(ParseKeyError);
        }
        let id = id.parse().map_err(|_| ParseKeyError)?;
        Ok(Self { environment: (*environment).into(), id, secret: (*secret).into() })
    }
}

fn base32(bytes: &[u8; SECRET_BYTES]) -> String {
    let mut text = String::with_capacity(SECRET_TEXT_LEN);
    for group in bytes.chunks_exact(5) {
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        for i in (0..8).rev() {
            text.push(char::from(ALPHABET[(bits >> (5 * i) & 31) as usize]));
        }
    }
    text
}

fn crc_text(body: &str) -> String {
    let mut crc = crc32fast::hash(body.as_bytes());
    let mut text = [0u8; CRC_TEXT_LEN];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(crc & 31) as usize];
        crc >>= 5;
    }
    text.iter().map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_parses_back_and_matches_its_hash_only() {
        let hash_key = HashKey([7; 32]);
        let key = ApiKey::generate("dev");
        let parsed: ApiKey = key.expose().parse().expect("parse");
        assert_eq!(parsed, key);
        assert!(parsed.matches(&hash_key, &key.hash(&hash_key)));
        assert!(!ApiKey::generate("dev").matches(&hash_key, &key.hash(&hash_key)));
        assert!(!parsed.matches(&HashKey([8; 32]), &key.hash(&hash_key)));
        assert!(!format!("{key:?}").contains(&*key.secret));
    }

    #[test]
    fn a_key_works_only_with_the_environment_it_was_made_for() {
        let hash_key = HashKey([7; 32]);
        let live = ApiKey::generate("live");
        let passed_off = ApiKey { environment: "dev".into(), ..live.clone() };
        assert!(passed_off.expose().parse::<ApiKey>().is_ok(), "its form is good");
        assert!(!passed_off.matches(&hash_key, &live.hash(&hash_key)));
        // Made before the environment was bound.
        let old = live.hash_of(&hash_key, &[]);
        assert!(live.matches(&hash_key, &old));
    }

    #[test]
    fn every_single_typo_is_caught_without_a_look_up() {
        let text = ApiKey::generate("live").expose();
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] = if bytes[i] == b'a' { b'b' } else { b'a' };
            let typo = String::from_utf8(bytes).expect("ascii");
            assert_eq!(typo.parse::<ApiKey>(), Err(ParseKeyError), "{i}");
        }
        assert!("".parse::<ApiKey>().is_err());
        assert!("sl_".repeat(100).parse::<ApiKey>().is_err());
    }
}
