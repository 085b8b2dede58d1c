//! Where records lie.

use sluice_types::{ClusterUid, LogUid};

use crate::{LogicalOffset, PhysicalOffset};

/// Where the records of a span lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A topic of a Kafka cluster.
    Cluster(ClusterLog),
    /// Committed segments in object storage, which know logical offsets.
    Tier,
}

/// A log of a topic on a Kafka cluster, and how far a partition's offsets there lie from the logical ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterLog {
    /// The cluster.
    pub cluster: ClusterUid,
    /// The log: with the namespace's uid it makes the name of the Kafka topic.
    pub log: LogUid,
    /// The logical offset of a record minus its physical one.
    pub delta: i64,
}

impl ClusterLog {
    /// Where `offset` lies in the log; `None` if no log has such an offset.
    pub fn physical(self, offset: LogicalOffset) -> Option<PhysicalOffset> {
        PhysicalOffset::new(offset.get().checked_sub(self.delta)?).ok()
    }

    /// What `offset` of the log is called by tenants; `None` if no partition has such an offset.
    pub fn logical(self, offset: PhysicalOffset) -> Option<LogicalOffset> {
        LogicalOffset::new(offset.get().checked_add(self.delta)?).ok()
    }

    /// Whether it is the same log: the deltas of its partitions differ.
    pub fn is_log_of(self, other: Self) -> bool {
        (self.cluster, self.log) == (other.cluster, other.log)
    }
}

impl Place {
    /// The log, if it is one of a Kafka cluster.
    pub fn cluster_log(self) -> Option<ClusterLog> {
        match self {
            Self::Cluster(log) => Some(log),
            Self::Tier => None,
        }
    }
}
