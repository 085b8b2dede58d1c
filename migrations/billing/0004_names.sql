-- Names of uids, from sluice.control. Rows stay for ever: usage outlives what was used. A record with a version that is not
-- above the row's is an older one and changes nothing.

CREATE TABLE billing.tenant (
    uid bigint PRIMARY KEY,
    id text NOT NULL,
    life smallint NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE billing.namespace (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL,
    id text NOT NULL,
    life smallint NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE billing.topic (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL,
    namespace_uid bigint NOT NULL,
    -- Ordered by bytes, as pages are.
    namespace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    life smallint NOT NULL,
    partitions integer NOT NULL,
    final_end_offsets bigint[] NOT NULL,
    version bigint NOT NULL
);
CREATE INDEX topic_name ON billing.topic (tenant_uid, namespace_id, id, uid);
