-- What was used. A uid is 64 random bits and names one life of a topic; the partition's offsets then name each record once.

-- One row per partition: whose it is, sums over its coverage, and the row that a change of its coverage locks.
CREATE TABLE billing.topic_partition (
    topic_uid bigint NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    tenant_uid bigint NOT NULL,
    namespace_uid bigint NOT NULL,
    covered_bytes bigint NOT NULL DEFAULT 0 CHECK (covered_bytes >= 0),
    covered_records bigint NOT NULL DEFAULT 0 CHECK (covered_records >= 0),
    covered_end bigint NOT NULL DEFAULT 0 CHECK (covered_end >= 0),
    PRIMARY KEY (topic_uid, partition)
);
CREATE INDEX topic_partition_tenant ON billing.topic_partition (tenant_uid);

-- Counted offsets: disjoint and never adjacent per partition. That is kept by the writer, which holds the lock on the row
-- of billing.topic_partition while it reads the neighbours and writes.
CREATE TABLE billing.coverage (
    topic_uid bigint NOT NULL,
    partition integer NOT NULL,
    "start" bigint NOT NULL CHECK ("start" >= 0),
    "end" bigint NOT NULL CHECK ("end" > "start"),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    tenant_uid bigint NOT NULL,
    PRIMARY KEY (topic_uid, partition, "start"),
    FOREIGN KEY (topic_uid, partition) REFERENCES billing.topic_partition
);

-- Sums per hour (hours since 1970, by the time the window was closed).
CREATE TABLE billing.hourly (
    tenant_uid bigint NOT NULL,
    namespace_uid bigint NOT NULL,
    topic_uid bigint NOT NULL,
    partition integer NOT NULL,
    hour bigint NOT NULL CHECK (hour >= 0),
    ingress_bytes bigint NOT NULL CHECK (ingress_bytes >= 0),
    ingress_records bigint NOT NULL CHECK (ingress_records >= 0),
    egress_bytes bigint NOT NULL CHECK (egress_bytes >= 0),
    egress_records bigint NOT NULL CHECK (egress_records >= 0),
    PRIMARY KEY (topic_uid, partition, hour)
);
CREATE INDEX hourly_tenant ON billing.hourly (tenant_uid, hour);

-- Intervals that were counted in part when they came: not added; their bytes must be read from the log.
CREATE TABLE billing.reread (
    topic_uid bigint NOT NULL,
    partition integer NOT NULL,
    "start" bigint NOT NULL,
    "end" bigint NOT NULL CHECK ("end" > "start"),
    claimed_bytes bigint NOT NULL,
    source text NOT NULL,
    window_number bigint NOT NULL,
    tenant_uid bigint NOT NULL,
    PRIMARY KEY (topic_uid, partition, "start", "end", source, window_number)
);
