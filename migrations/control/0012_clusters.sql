-- Kafka clusters that may hold topics. The first row is the installation's own cluster; its uid is the same everywhere, so that
-- records of topics that name no cluster mean it.
CREATE TABLE control.cluster (
    uid bigint PRIMARY KEY,
    id text NOT NULL UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO control.cluster (uid, id) VALUES (0, 'first');
ALTER TABLE control.cluster ENABLE ROW LEVEL SECURITY;


-- Where a topic's records lie. It has one log there, whose uid is the topic's.
ALTER TABLE control.topic ADD COLUMN cluster_uid bigint NOT NULL DEFAULT 0 REFERENCES control.cluster;
