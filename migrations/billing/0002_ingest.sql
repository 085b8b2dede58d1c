-- How far the logs are read, and what came of reading them. Every transaction that adds usage moves `ingest_offset.next`
-- from exactly the offset it began at: a second reader, or one that comes back from the dead, changes zero rows and rolls
-- back. No group offsets in Kafka: they could not move in the same transaction.

CREATE TABLE billing.ingest_offset (
    topic text NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    -- Kafka's id of the topic. Another one under the same name is another log: offsets mean nothing there.
    topic_id text NOT NULL,
    next bigint NOT NULL CHECK (next >= 0),
    PRIMARY KEY (topic, partition)
);

-- Windows of a source are numbered 1, 2, 3, …: `last_window` is the last one that was added.
CREATE TABLE billing.source (
    source text PRIMARY KEY,
    last_window bigint NOT NULL CHECK (last_window >= 0),
    last_seen_ms bigint NOT NULL,
    ended boolean NOT NULL,
    -- The highest that came; above `last_window` the source stands still behind a missing one.
    highest_window bigint NOT NULL,
    CHECK (highest_window >= last_window)
);
CREATE INDEX source_stopped ON billing.source (source) WHERE highest_window > last_window;

-- Offsets of a log that were gone before they were read.
CREATE TABLE billing.log_gap (
    topic text NOT NULL,
    partition integer NOT NULL,
    "start" bigint NOT NULL,
    "end" bigint NOT NULL CHECK ("end" > "start"),
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "start")
);

-- Records of the usage log that are not sound windows; kept, so that a person can judge.
CREATE TABLE billing.rejected_window (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (topic, partition, "offset")
);
