//! Ack ids: what a consumer gets with a record and gives back to settle it.
//!
//! An id names one lease of one life of one group, and a MAC makes it unforgeable, so any gateway can tell a good one without
//! asking anybody. Whatever is not exactly what a gateway made (another group, another key, one bit) is `None`, all alike.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use sluice_types::{GroupUid, TopicUid, Uid};

use crate::groups::keyring::Keys;
use crate::groups::model::LeaseKey;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
/// Version, key, group, topic, partition, offset, term, attempt.
const BODY_BYTES: usize = 1 + 1 + 8 + 8 + 4 + 8 + 8 + 4;
const ID_BYTES: usize = BODY_BYTES + MAC_BYTES;
/// Characters of an id.
pub const ACK_ID_LEN: usize = (ID_BYTES * 4).div_ceil(3);

/// Makes and reads ack ids.
#[derive(Clone, Debug)]
pub struct AckIds(Keys);

impl AckIds {
    /// With these keys.
    pub fn new(keys: Keys) -> Self {
        Self(keys)
    }

    /// The keys, for what else they sign.
    pub(crate) fn keys(&self) -> &Keys {
        &self.0
    }

    /// The id of a lease.
    pub fn make(&self, group: GroupUid, lease: LeaseKey) -> String {
        let ring = self.0.ring();
        let key = ring.signing();
        let mut id = [0; ID_BYTES];
        let body = body(key.id, group, lease);
        id[..BODY_BYTES].copy_from_slice(&body);
        id[BODY_BYTES..].copy_from_slice(&mac(&key.ack, &body));
        URL_SAFE_NO_PAD.encode(id)
    }

    /// The lease that an id of this group names.
    pub fn read(&self, group: GroupUid, text: &str) -> Option<LeaseKey> {
        if text.len() != ACK_ID_LEN {
            return None;
        }
        let id: [u8; ID_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (body, sent) = id.split_first_chunk::<BODY_BYTES>()?;
        let ring = self.0.ring();
        let key = ring.get(body[1])?;
        // Without an early end: the time must not tell how many bytes of a guess are right.
        let expected = mac(&key.ack, body);
        let difference = expected.iter().zip(sent).fold(0, |difference, (a, b)| difference | (a ^ b));
        if difference != 0 || body[0] != VERSION {
            return None;
        }
        let mut rest = Rest(&body[2..]);
        (rest.u64()? == group.uid().as_u64()).then_some(())?;
        Some(LeaseKey {
            topic: TopicUid::from_uid(Uid::from_u64(rest.u64()?)),
            partition: i32::from_be_bytes(rest.take()?),
            offset: i64::from_be_bytes(rest.take()?),
            term: rest.u64()?,
            attempt: u32::from_be_bytes(rest.take()?),
        })
    }
}

fn body(key: u8, group: GroupUid, lease: LeaseKey) -> [u8; BODY_BYTES] {
    let parts: [&[u8]; 8] = [
        &[VERSION],
        &[key],
        &group.uid().as_u64().to_be_bytes(),
        &lease.topic.uid().as_u64().to_be_bytes(),
        &lease.partition.to_be_bytes(),
        &lease.offset.to_be_bytes(),
        &lease.term.to_be_bytes(),
        &lease.attempt.to_be_bytes(),
    ];
    let mut body = [0; BODY_BYTES];
    let mut at = 0;
    for part in parts {
        body[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    body
}

fn mac(key: &[u8; 32], body: &[u8; BODY_BYTES]) -> [u8; MAC_BYTES] {
    let hash = blake3::keyed_hash(key, body);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&hash.as_bytes()[..MAC_BYTES]);
    mac
}

/// Takes numbers off the front.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::groups::keyring::KeyRing;

    use super::*;

    fn ids(lines: &[(u8, char)]) -> AckIds {
        let text: String = lines.iter().map(|(id, digit)| format!("{id} {}\n", digit.to_string().repeat(64))).collect();
        AckIds::new(Keys::fixed(KeyRing::parse(&text).expect("keys")))
    }

    fn lease() -> LeaseKey {
        LeaseKey { topic: TopicUid::random(), partition: 3, offset: i64::MAX - 1, term: u64::MAX, attempt: 2 }
    }

    #[test]
    fn an_id_names_its_lease_for_its_group_alone() {
        let (ids, group, lease) = (ids(&[(1, 'a')]), GroupUid::random(), lease());
        let text = ids.make(group, lease);
        assert_eq!(text.len(), ACK_ID_LEN);
        assert!(text.len() <= 200, "the limit that the contract names");
        assert_eq!(ids.read(group, &text), Some(lease));
        assert_eq!(ids.read(GroupUid::random(), &text), None);
    }

    #[test]
    fn no_flipped_bit_and_no_other_text_gets_through() {
        let (ids, group) = (ids(&[(1, 'a')]), GroupUid::random());
        let text = ids.make(group, lease());
        let raw = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        for bit in 0..raw.len() * 8 {
            let mut flipped = raw.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ids.read(group, &URL_SAFE_NO_PAD.encode(&flipped)), None, "bit {bit}");
        }
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = String::from_utf8(flipped) {
                assert_eq!(ids.read(group, &flipped), None, "bit {bit} of the text");
            }
        }
        for other in ["", "x", &text[1..], &format!("{text}A"), &"A".repeat(ACK_ID_LEN), &"é".repeat(ACK_ID_LEN / 2)] {
            assert_eq!(ids.read(group, other), None);
        }
    }

    #[test]
    fn keys_are_rotated_without_a_gap() {
        let (group, lease) = (GroupUid::random(), lease());
        let (old, added) = (ids(&[(1, 'a')]), ids(&[(1, 'a'), (2, 'b')]));
        let (promoted, dropped) = (ids(&[(2, 'b'), (1, 'a')]), ids(&[(2, 'b')]));
        for (signer, verifier) in [(&old, &added), (&added, &old), (&added, &promoted), (&promoted, &added)] {
            assert_eq!(verifier.read(group, &signer.make(group, lease)), Some(lease));
        }
        assert_eq!(dropped.read(group, &promoted.make(group, lease)), Some(lease));
        assert_eq!(dropped.read(group, &old.make(group, lease)), None);
        let same_number = ids(&[(1, 'c')]);
        assert_eq!(same_number.read(group, &old.make(group, lease)), None, "the number of a key is not the key");
    }
}
