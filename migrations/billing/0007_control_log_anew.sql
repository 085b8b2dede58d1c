-- A log of states (`sluice.control`) that was made anew, or lost something that was read, is read again beside what is held,
-- and replaces it when it is complete. Both columns mean nothing for other logs.

ALTER TABLE billing.ingest_offset
    -- When the latest record was appended that was read, by the broker's clock. What was read before this column was there was
    -- appended before now.
    ADD COLUMN read_ms bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000)::bigint,
    -- Set while the log is read again: it is complete when it says so in a record that was appended after this time.
    ADD COLUMN anew_after_ms bigint;
ALTER TABLE billing.ingest_offset ALTER COLUMN read_ms SET DEFAULT 0;
