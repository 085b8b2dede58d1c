//! What a consumer may still get.

use sluice_proto::stream::v1::ConsumeCredit;
use sluice_types::error::Error;

/// Records left at most.
pub(super) const RECORDS_MAX: u64 = 10_000;
/// Bytes left at most.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// Bytes that come with every 100 records, if none are named.
const BYTES_PER_HUNDRED: u64 = 1 << 20;

/// Records and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Credit {
    /// From a message of the client.
    pub(super) fn read(credit: ConsumeCredit) -> Result<Self, Error> {
        let records = u64::try_from(credit.records)
            .map_err(|_| Error::invalid("credit.records", format!("is {}; it must be 0 or more", credit.records)))?;
        let bytes = u64::try_from(credit.bytes)
            .map_err(|_| Error::invalid("credit.bytes", format!("is {}; it must be 0 or more", credit.bytes)))?;
        let bytes = if bytes == 0 { records.div_ceil(100) * BYTES_PER_HUNDRED } else { bytes };
        Ok(Self { records, bytes })
    }

    /// Adds within the limits; gives what was added.
    pub(super) fn add(&mut self, more: Self) -> Self {
        let records = more.records.min(RECORDS_MAX.saturating_sub(self.records));
        let bytes = more.bytes.min(BYTES_MAX.saturating_sub(self.bytes));
        self.records += records;
        self.bytes += bytes;
        Self { records, bytes }
    }

    /// Takes what was delivered.
    pub(super) fn take(&mut self, records: usize, bytes: u64) {
        self.records = self.records.saturating_sub(records as u64);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_read_and_cut_as_documented() {
        let read = |records, bytes| Credit::read(ConsumeCredit { records, bytes });
        assert_eq!(read(101, 0).expect("good"), Credit { records: 101, bytes: 2 << 20 });
        assert_eq!(read(0, 5).expect("good"), Credit { records: 0, bytes: 5 });
        assert_eq!(read(-1, 0).expect_err("less than none").field.as_deref(), Some("credit.records"));
        assert_eq!(read(1, -1).expect_err("less than none").field.as_deref(), Some("credit.bytes"));
        let mut left = Credit { records: 9_990, bytes: 0 };
        assert_eq!(left.add(Credit { records: 100, bytes: 100 << 20 }), Credit { records: 10, bytes: 64 << 20 });
        left.take(10_001, 1);
        assert_eq!(left, Credit { records: 0, bytes: (64 << 20) - 1 });
    }
}
