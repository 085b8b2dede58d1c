-- The leader epoch of the record before the position, if it is known: a log that lost its end while nobody read it, and has grown
-- beyond the position since, has another epoch there.

ALTER TABLE billing.ingest_offset ADD COLUMN epoch integer;
