//! Partitions of the dead-letter topic that cannot be read: each is told with its error, and the others go on.

use std::collections::BTreeMap;

use sluice_proto::stream::v1::PartitionFailure;
use sluice_types::error::Error;

use crate::data::failure;

/// The first error of each partition that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeMap<i32, Error>);

impl Failing {
    pub(super) fn add(&mut self, partition: i32, error: Error) {
        failure::log(&error);
        self.0.entry(partition).or_insert(error);
    }

    /// Takes over what another one has.
    pub(super) fn append(&mut self, other: &mut Self) {
        for (partition, error) in std::mem::take(&mut other.0) {
            self.0.entry(partition).or_insert(error);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails with the error of the first if none of so many partitions can be read: that is no partition's matter alone.
    pub(super) fn unless_all(self, partitions: usize) -> Result<Self, Error> {
        match self.0.len() < partitions {
            true => Ok(self),
            false => self.0.into_values().next().map_or_else(|| Ok(Self::default()), Err),
        }
    }

    /// As it is told, by number.
    pub(super) fn told(self) -> Vec<PartitionFailure> {
        let told =
            |(partition, error): (i32, Error)| PartitionFailure { partition, error: Some(failure::to_status(&error)) };
        self.0.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::unavailable;

    #[test]
    fn partitions_are_told_by_number_and_a_topic_that_nobody_can_read_is_an_error() {
        let failing = || {
            let mut failing = Failing::default();
            let mut more = Failing::default();
            more.add(2, unavailable("two"));
            more.add(2, Error::internal("later"));
            more.add(0, unavailable("zero"));
            failing.append(&mut more);
            assert!(more.is_empty() && !failing.is_empty());
            failing
        };
        let told = failing().unless_all(3).expect("one can be read").told();
        let codes = told.iter().map(|failure| (failure.partition, failure.error.as_ref().map(|error| error.code)));
        assert_eq!(codes.collect::<Vec<_>>(), [(0, Some(14)), (2, Some(14))]);
        let error = failing().unless_all(2).expect_err("none");
        assert_eq!(error.source.map(|source| source.to_string()).as_deref(), Some("zero"));
        assert!(Failing::default().unless_all(0).expect("nothing was asked for").is_empty());
    }
}
