-- outside a transaction
-- Of an operation that raises a topic's partitions: how many there were, and how many there are to be.
ALTER TABLE control.operation
    ADD COLUMN IF NOT EXISTS partitions_before integer,
    ADD COLUMN IF NOT EXISTS partitions_after integer;

-- Of a deleted group: how often it was seen that Kafka does not hold it, and from when on it may be looked at next.
ALTER TABLE control.consumer_group
    ADD COLUMN IF NOT EXISTS kafka_gone smallint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS kafka_look_time timestamptz NOT NULL DEFAULT now();
CREATE INDEX CONCURRENTLY IF NOT EXISTS consumer_group_in_kafka ON control.consumer_group (uid)
    WHERE state = 'DELETED' AND kafka_gone < 2;
