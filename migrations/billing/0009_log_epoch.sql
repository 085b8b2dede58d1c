-- The leader epoch of the record before the position, if it is known: a log that lost its end while nobody read it, and has grown
-- beyond the position since, has another epoch there.

-- It counts only beside the position that it was stored with: an older version of the program moves the position and leaves it.
ALTER TABLE billing.ingest_offset ADD COLUMN epoch integer, ADD COLUMN epoch_next bigint;
