//! Page tokens of dead letters: where a list goes on, bound to caller, group and arguments.
//!
//! Signed with the ring that all gateways share, so the next page may come from any of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use sluice_proto::stream::v1::PayloadEncoding;
use sluice_types::error::Error;

use crate::access::DataCall;
use crate::groups::keyring::Keys;
use crate::groups::model::ResolvedGroup;
use crate::view::ResolvedTopic;

use super::{FIRST, word_of};

const MAC_BYTES: usize = 16;
/// Key, partition, offset.
const BODY_BYTES: usize = 1 + 4 + 8;

/// Where to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Tokens of one list.
pub(super) struct Pages<'a> {
    keys: &'a Keys,
    list: String,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        keys: &'a Keys,
        call: &DataCall,
        group: &ResolvedGroup,
        topic: &ResolvedTopic,
        encoding: PayloadEncoding,
    ) -> Self {
        let context = &call.context;
        // Uids and words of ours: no part holds a blank.
        let list = format!(
            "{} {} {} {} {}",
            context.tenant.uid(),
            context.principal.account,
            group.group_uid,
            topic.topic_uid,
            word_of(encoding)
        );
        Self { keys, list }
    }

    pub(super) fn token(&self, place: Place) -> String {
        let ring = self.keys.ring();
        let key = ring.signing();
        let mut body = vec![key.id];
        body.extend_from_slice(&place.partition.to_be_bytes());
        body.extend_from_slice(&place.offset.to_be_bytes());
        let mac = self.mac(&key.page, &body);
        body.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(body)
    }

    /// Where the page begins.
    pub(super) fn read(&self, token: &str) -> Result<Place, Error> {
        if token.is_empty() {
            return Ok(FIRST);
        }
        self.verify(token).ok_or_else(|| {
            Error::invalid(
                "pageToken",
                "is not one of this list; take nextPageToken of its last page, or leave it empty",
            )
        })
    }

    fn verify(&self, token: &str) -> Option<Place> {
        let bytes: [u8; BODY_BYTES + MAC_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (body, sent) = bytes.split_first_chunk::<BODY_BYTES>()?;
        let ring = self.keys.ring();
        let expected = self.mac(&ring.get(body[0])?.page, body);
        // Without an early end: the time must not tell how many bytes of a guess are right.
        let difference = expected.iter().zip(sent).fold(0, |difference, (a, b)| difference | (a ^ b));
        (difference == 0).then_some(())?;
        let (partition, offset) = body[1..].split_first_chunk::<4>()?;
        let place =
            Place { partition: i32::from_be_bytes(*partition), offset: i64::from_be_bytes(offset.try_into().ok()?) };
        Some(place)
    }

    fn mac(&self, key: &[u8; 32], body: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&(body.len() as u64).to_be_bytes());
        hasher.update(body);
        hasher.update(self.list.as_bytes());
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use crate::groups::keyring::KeyRing;

    use super::*;

    #[test]
    fn a_token_works_for_its_own_list_alone() {
        let keys = Keys::fixed(KeyRing::parse(&format!("1 {}", "a".repeat(64))).expect("a key"));
        let pages = |list: &str| Pages { keys: &keys, list: list.to_owned() };
        let place = Place { partition: 3, offset: 1 << 40 };
        let token = pages("a b").token(place);
        assert_eq!(pages("a b").read(&token).expect("its own"), place);
        assert_eq!(pages("a b").read("").expect("the first"), FIRST);
        let refused = pages("a b").read("AAAA").expect_err("made up").message;
        assert_eq!(pages("a c").read(&token).expect_err("another list").message, refused);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(pages("a b").read(&String::from_utf8(bytes).expect("ascii")).is_err(), "{at}");
        }
    }
}
