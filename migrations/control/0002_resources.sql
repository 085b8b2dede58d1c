-- What tenants have. A uid is 64 random bits, never reused; `version` grows with every change and orders the records of
-- sluice.control. Rows of deleted things stay until their tombstone, tenants' rows for ever: ids are not reused.

CREATE TABLE control.tenant (
    uid bigint PRIMARY KEY,
    id text NOT NULL UNIQUE,
    display_name text NOT NULL,
    state text NOT NULL CHECK (state IN ('ACTIVE', 'DELETING', 'DELETED')),
    suspended boolean NOT NULL DEFAULT false,
    requests_per_second bigint NOT NULL DEFAULT 0 CHECK (requests_per_second >= 0),
    ingress_bytes_per_second bigint NOT NULL DEFAULT 0 CHECK (ingress_bytes_per_second >= 0),
    egress_bytes_per_second bigint NOT NULL DEFAULT 0 CHECK (egress_bytes_per_second >= 0),
    bytes_in_flight bigint NOT NULL DEFAULT 0 CHECK (bytes_in_flight >= 0),
    topics_max bigint NOT NULL DEFAULT 0 CHECK (topics_max >= 0),
    partitions_max bigint NOT NULL DEFAULT 0 CHECK (partitions_max >= 0),
    namespaces_max bigint NOT NULL DEFAULT 0 CHECK (namespaces_max >= 0),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    delete_time timestamptz
);

CREATE TABLE control.namespace (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    id text NOT NULL,
    display_name text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    deletion_protection boolean NOT NULL DEFAULT false,
    state text NOT NULL CHECK (state IN ('ACTIVE', 'DELETED')),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    delete_time timestamptz
);
CREATE UNIQUE INDEX namespace_id ON control.namespace (tenant_uid, id) WHERE state = 'ACTIVE';

CREATE TABLE control.topic (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    namespace_uid bigint NOT NULL REFERENCES control.namespace,
    namespace_id text NOT NULL,
    id text NOT NULL,
    display_name text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    deletion_protection boolean NOT NULL DEFAULT false,
    -- As the client sent them; NULL: absent.
    partition_count integer,
    retention_ms bigint,
    cleanup_policy integer NOT NULL,
    -- As resolved by us: the intent.
    effective_partitions integer NOT NULL CHECK (effective_partitions > 0),
    effective_retention_ms bigint NOT NULL CHECK (effective_retention_ms > 0),
    generation bigint NOT NULL DEFAULT 1,
    state text NOT NULL CHECK (state IN ('CREATING', 'ACTIVE', 'UPDATING', 'DELETING', 'DELETED', 'FAILED')),
    -- As provisioning reports: the world.
    observed_generation bigint NOT NULL DEFAULT 0,
    observed_partitions integer NOT NULL DEFAULT 0,
    kafka_topic_id text,
    create_attempted boolean NOT NULL DEFAULT false,
    final_end_offsets bigint[] NOT NULL DEFAULT '{}',
    conditions jsonb NOT NULL DEFAULT '[]',
    attempts integer NOT NULL DEFAULT 0,
    attempt_time timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    delete_time timestamptz
);
-- A name is free again as soon as its topic is being deleted.
CREATE UNIQUE INDEX topic_id ON control.topic (namespace_uid, id) WHERE state NOT IN ('DELETING', 'DELETED');
CREATE INDEX topic_of_tenant ON control.topic (tenant_uid) WHERE state <> 'DELETED';
CREATE INDEX topic_work ON control.topic (attempt_time) WHERE state IN ('CREATING', 'UPDATING', 'DELETING');

CREATE TABLE control.service_account (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    id text NOT NULL,
    display_name text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    built_in boolean NOT NULL DEFAULT false,
    state text NOT NULL CHECK (state IN ('ACTIVE', 'DELETED')),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    delete_time timestamptz
);
CREATE UNIQUE INDEX service_account_id ON control.service_account (tenant_uid, id) WHERE state = 'ACTIVE';

CREATE TABLE control.role_binding (
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    account_uid bigint NOT NULL REFERENCES control.service_account,
    position integer NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'developer', 'producer', 'consumer', 'viewer')),
    resource text NOT NULL,
    PRIMARY KEY (account_uid, position)
);

CREATE TABLE control.api_key (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    account_uid bigint NOT NULL REFERENCES control.service_account,
    display_name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    state text NOT NULL CHECK (state IN ('ACTIVE', 'REVOKED')),
    expire_time timestamptz,
    revoke_time timestamptz,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_key_of_account ON control.api_key (account_uid, uid);
