-- outside a transaction
-- Of an operation that raises a topic's partitions: how many there were, and how many there are to be.
ALTER TABLE control.operation
    ADD COLUMN IF NOT EXISTS partitions_before integer,
    ADD COLUMN IF NOT EXISTS partitions_after integer;
