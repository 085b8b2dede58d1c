-- From which time on a topic keeps its records, as the client sent it; 0: not said, which is their producers' time. And the
-- retention that Kafka was last seen to have; 0: not seen, as of every topic before its next change.
ALTER TABLE control.topic
    ADD COLUMN timestamp_policy integer NOT NULL DEFAULT 0,
    ADD COLUMN observed_retention_ms bigint NOT NULL DEFAULT 0;
