//! Decoder against the encoder, and against bytes nobody would send in good faith.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::batch::encode::{OutRecord, encode_batch};

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

fn record(value: &str) -> OutRecord {
    OutRecord { value: Some(Bytes::copy_from_slice(value.as_bytes())), timestamp_ms: 7, ..Default::default() }
}

/// A batch as a broker stores it: with offset, producer and flags, and the CRC made good again.
fn stored(records: &[OutRecord], base_offset: i64, attributes: i16, producer_id: i64) -> Bytes {
    let mut batch = BytesMut::from(&encode_batch(records).unwrap()[..]);
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn marker(base_offset: i64, kind: u8, producer_id: i64) -> Bytes {
    let key = Bytes::copy_from_slice(&[0, 0, 0, kind]);
    let record = OutRecord { key: Some(key), value: Some(Bytes::from_static(&[0; 6])), ..Default::default() };
    stored(&[record], base_offset, TRANSACTIONAL | CONTROL, producer_id)
}

fn join(batches: &[Bytes]) -> Bytes {
    Bytes::from(batches.concat())
}

fn values(decoded: &Decoded) -> Vec<&str> {
    decoded.records.iter().map(|record| std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn records_below_the_offset_asked_for_are_left_out() {
    let bytes = join(&[stored(&[record("a"), record("b")], 10, 0, -1), stored(&[record("c"), record("d")], 12, 0, -1)]);
    let decoded = decode(&bytes, 13, &[]).unwrap();
    assert_eq!(values(&decoded), ["d"]);
    assert_eq!((decoded.records[0].offset, decoded.next_offset), (13, 14));
}

#[test]
fn aborted_transactions_and_markers_are_hidden_and_still_move_the_offset() {
    let bytes = join(&[
        stored(&[record("gone")], 0, TRANSACTIONAL, 5),
        stored(&[record("other producer")], 1, TRANSACTIONAL, 6),
        marker(2, 0, 5),
        stored(&[record("kept")], 3, TRANSACTIONAL, 5),
        marker(4, 1, 5),
    ]);
    let aborted = [AbortedTransaction { producer_id: 5, first_offset: 0 }];
    let decoded = decode(&bytes, 0, &aborted).unwrap();
    assert_eq!(values(&decoded), ["other producer", "kept"]);
    assert_eq!(decoded.next_offset, 5);
    let only_marker = decode(&marker(9, 1, 5), 9, &[]).unwrap();
    assert_eq!((only_marker.records.len(), only_marker.next_offset), (0, 10));
}

#[test]
fn a_batch_cut_off_at_any_byte_is_tolerated() {
    let whole = stored(&[record("a")], 0, 0, -1);
    let bytes = join(&[whole.clone(), stored(&[record("b")], 1, 0, -1)]);
    for cut in whole.len() + 1..bytes.len() {
        let decoded = decode(&bytes.slice(..cut), 0, &[]).unwrap();
        assert_eq!((values(&decoded), decoded.next_offset, decoded.truncated), (vec!["a"], 1, true), "{cut}");
    }
}

#[test]
fn a_flipped_bit_fails_the_checksum() {
    let mut bytes = stored(&[record("a")], 3, 0, -1).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&bytes.into(), 0, &[]), Err(DecodeError::Crc { base_offset: 3 }));
}

#[test]
fn append_time_is_the_brokers() {
    let bytes = stored(&[record("a")], 0, crate::batch::header::ATTRIBUTE_LOG_APPEND_TIME, -1);
    let decoded = decode(&bytes, 0, &[]).unwrap();
    assert_eq!(decoded.records[0].timestamp_type, crate::TimestampType::LogAppendTime);
}

/// The same batch with its records compressed.
fn gzipped(plain: &Bytes) -> Bytes {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain[BATCH_HEADER_BYTES..]).unwrap();
    let mut batch = BytesMut::from(&plain[..BATCH_HEADER_BYTES]);
    batch.put_slice(&gzip.finish().unwrap());
    let length = (batch.len() - LENGTH_END) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] |= 1;
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// Batches of two records that inflate a hundredfold, `count` of them.
fn inflating(count: i64) -> Bytes {
    let records = [record(&"x".repeat(10_000)), record("y")];
    join(&(0..count).map(|at| gzipped(&stored(&records, at * 2, 0, -1))).collect::<Vec<_>>())
}

#[test]
fn a_bound_stops_the_decoding_between_batches_and_loses_nothing() {
    let bytes = inflating(50);
    let limits = DecodeLimits::held_bytes(45_000);
    let mut offsets = Vec::new();
    let mut next_offset = 0;
    while next_offset < 100 {
        let decoded = decode_with(&bytes, next_offset, &[], limits).unwrap();
        assert!((10_000..=45_000).contains(&decoded.held_bytes), "{}", decoded.held_bytes);
        assert!(decoded.next_offset > next_offset && decoded.stopped == (decoded.next_offset < 100));
        offsets.extend(decoded.records.iter().map(|record| record.offset));
        next_offset = decoded.next_offset;
    }
    assert_eq!(offsets, (0..100).collect::<Vec<i64>>());
}

#[test]
fn the_first_batch_comes_whole_however_small_the_bound() {
    let decoded = decode_with(&inflating(3), 2, &[], DecodeLimits::held_bytes(1)).unwrap();
    assert_eq!((decoded.records.len(), decoded.next_offset, decoded.stopped), (2, 4, true));
    let plain = join(&[stored(&[record("a")], 0, 0, -1), stored(&[record("b")], 1, 0, -1)]);
    let decoded = decode_with(&plain, 0, &[], DecodeLimits::held_bytes(1)).unwrap();
    assert_eq!((values(&decoded), decoded.next_offset, decoded.stopped), (vec!["a"], 1, true));
}

#[test]
fn what_no_reader_may_see_is_not_inflated() {
    let mut batches: Vec<_> =
        (0..50).map(|at| gzipped(&stored(&[record(&"x".repeat(10_000))], at, TRANSACTIONAL, 5))).collect();
    batches.extend([marker(50, 0, 5), stored(&[record("kept")], 51, 0, -1)]);
    let aborted = [AbortedTransaction { producer_id: 5, first_offset: 0 }];
    let limits = DecodeLimits { held_bytes_max: 1, batch_bytes_max: 100 };
    let decoded = decode_with(&join(&batches), 0, &aborted, limits).unwrap();
    assert_eq!((values(&decoded), decoded.next_offset), (vec!["kept"], 52));
}

#[test]
fn epochs_are_told_where_they_begin() {
    let of_epoch = |base_offset: i64, epoch: i32| {
        let mut batch = stored(&[record("a"), record("b")], base_offset, 0, -1).to_vec();
        // Not under the checksum: the leader sets it.
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        Bytes::from(batch)
    };
    let bytes = join(&[of_epoch(0, 3), of_epoch(2, 5), of_epoch(4, 5), of_epoch(6, 6)]);
    let starts = |from| {
        let decoded = decode(&bytes, from, &[]).unwrap();
        decoded.epochs.iter().map(|start| (start.offset, start.epoch)).collect::<Vec<_>>()
    };
    assert_eq!(starts(1), [(1, 3), (2, 5), (6, 6)]);
    assert_eq!(starts(3), [(3, 5), (6, 6)]);
}

#[test]
fn small_records_count_for_what_they_take() {
    let records = vec![OutRecord { timestamp_ms: 7, ..Default::default() }; 1_000];
    let bytes = stored(&records, 0, 0, -1);
    let decoded = decode(&bytes, 0, &[]).unwrap();
    assert!(decoded.held_bytes >= bytes.len() + 1_000 * size_of::<Record>(), "{}", decoded.held_bytes);
}

#[test]
fn a_batch_beyond_what_one_may_have_is_refused_and_what_came_before_it_given() {
    let limits = DecodeLimits { batch_bytes_max: 9_999, ..DecodeLimits::default() };
    let refused = decode_with(&inflating(1), 0, &[], limits);
    assert!(matches!(refused, Err(DecodeError::Inflate { base_offset: 0, .. })), "{refused:?}");
    let too_large = gzipped(&stored(&[record(&"x".repeat(10_000))], 2, 0, -1));
    let before = join(&[stored(&[record("a"), record("b")], 0, 0, -1), too_large]);
    let decoded = decode_with(&before, 0, &[], limits).unwrap();
    assert_eq!((values(&decoded), decoded.next_offset, decoded.stopped), (vec!["a", "b"], 2, true));
    assert!(decode_with(&before, 2, &[], limits).is_err(), "the next read fails");
}

#[test]
fn damage_fails_only_the_read_that_begins_with_it() {
    let mut bytes = join(&[stored(&[record("a")], 0, 0, -1), stored(&[record("b")], 1, 0, -1)]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let bytes = Bytes::from(bytes);
    let decoded = decode(&bytes, 0, &[]).unwrap();
    assert_eq!((values(&decoded), decoded.next_offset, decoded.stopped), (vec!["a"], 1, true));
    assert_eq!(decode(&bytes, 1, &[]), Err(DecodeError::Crc { base_offset: 1 }));
}

fn any_bytes() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from))
}

prop_compose! {
    fn any_record()(
        key in any_bytes(),
        value in any_bytes(),
        headers in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from), any_bytes()), 0..4),
        timestamp_ms in 0..4_000_000_000_000_i64,
    ) -> OutRecord {
        OutRecord { key, value, headers, timestamp_ms }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(records in proptest::collection::vec(any_record(), 1..20)) {
        let bytes = stored(&records, 100, 0, -1);
        let decoded = decode(&bytes, 0, &[]).unwrap();
        prop_assert_eq!(decoded.next_offset, 100 + records.len() as i64);
        prop_assert_eq!(decoded.records.len(), records.len());
        for ((expected, found), offset) in records.iter().zip(&decoded.records).zip(100..) {
            prop_assert_eq!(found.offset, offset);
            prop_assert_eq!(found.timestamp_ms, expected.timestamp_ms);
            prop_assert_eq!(&found.key, &expected.key);
            prop_assert_eq!(&found.value, &expected.value);
            prop_assert_eq!(&found.headers, &expected.headers);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _any_outcome = decode(&bytes.into(), 0, &[]);
    }

    /// Damage behind a good checksum: what a hostile producer could store.
    #[test]
    fn damaged_batches_with_a_good_checksum_never_panic(
        records in proptest::collection::vec(any_record(), 1..5),
        damage in proptest::collection::vec((21..400_usize, any::<u8>()), 1..8),
        cut in 0..50_usize,
    ) {
        let mut batch = stored(&records, 0, 0, -1).to_vec();
        for (at, byte) in damage {
            let at = at % batch.len();
            if at >= CRC_FROM {
                batch[at] = byte;
            }
        }
        batch.truncate((batch.len() - cut.min(batch.len())).max(BATCH_HEADER_BYTES));
        let length = (batch.len() - LENGTH_END) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        let limits = DecodeLimits { held_bytes_max: 1 << 10, batch_bytes_max: 1 << 20 };
        let _any_outcome = decode_with(&batch.into(), 0, &[], limits);
    }
}
