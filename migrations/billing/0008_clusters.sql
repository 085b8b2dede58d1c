-- On which Kafka cluster a topic's log is, so that its end is read there. 0 is the installation's first cluster, where all topics
-- were before. NULL: its records lie in more than one log, or where this version cannot look.
ALTER TABLE billing.topic ADD COLUMN cluster_uid bigint DEFAULT 0;
