-- What belongs to a change, written in its transaction: operation, audit event, remembered answer, outbox.

CREATE TABLE control.operation (
    uid bigint PRIMARY KEY,
    tenant_uid bigint NOT NULL REFERENCES control.tenant,
    target text NOT NULL,
    target_uid bigint NOT NULL,
    verb text NOT NULL CHECK (verb IN ('create', 'update', 'delete')),
    state text NOT NULL CHECK (state IN ('RUNNING', 'SUCCEEDED', 'FAILED')),
    -- The generation of the target that ends it.
    generation bigint NOT NULL DEFAULT 0,
    -- The outbox row that holds its effect, and the revision that row got.
    effect_outbox_id bigint,
    revision text,
    -- The resource as it was at the end (an encoded google.protobuf.Any).
    response bytea,
    error_code integer,
    error_reason text,
    error_message text,
    create_time timestamptz NOT NULL DEFAULT now(),
    end_time timestamptz
);
CREATE INDEX operation_running ON control.operation (target_uid) WHERE state = 'RUNNING';
CREATE INDEX operation_by_time ON control.operation (tenant_uid, create_time DESC, uid DESC);
CREATE INDEX operation_unpublished ON control.operation (effect_outbox_id) WHERE revision IS NULL;

-- Never updated, never deleted by anyone but the owner. `tenant_uid` 0: of the installation.
CREATE TABLE control.audit_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_uid bigint NOT NULL,
    time timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    credential text NOT NULL,
    method text NOT NULL,
    resource text NOT NULL,
    resource_uid bigint NOT NULL,
    request_id text NOT NULL,
    source_address text,
    detail jsonb NOT NULL DEFAULT '{}',
    outbox_id bigint
);
CREATE INDEX audit_event_of_tenant ON control.audit_event (tenant_uid, id);

-- The answer of a mutation, by the caller's request id, for 24 h. `tenant_uid` 0: the operator.
CREATE TABLE control.idempotency (
    tenant_uid bigint NOT NULL,
    principal text NOT NULL,
    method text NOT NULL,
    request_id uuid NOT NULL,
    request_hash bytea NOT NULL,
    answer bytea,
    outbox_id bigint,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_uid, principal, method, request_id)
);
CREATE INDEX idempotency_by_time ON control.idempotency (create_time);

-- Changes on their way to sluice.control. `payload` is an encoded ControlRecord, NULL for a tombstone. The last row of
-- each aggregate stays, so that its state can be published again by clearing `published_offset`.
CREATE TABLE control.outbox (
    id bigserial PRIMARY KEY,
    tenant_uid bigint NOT NULL,
    aggregate_uid bigint NOT NULL,
    version bigint NOT NULL,
    payload bytea,
    gone boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    published_offset bigint,
    publish_time timestamptz
);
CREATE INDEX outbox_unpublished ON control.outbox (id) WHERE published_offset IS NULL;
CREATE INDEX outbox_of_aggregate ON control.outbox (aggregate_uid, id);

-- Who does what alone. The epoch grows with every change of the holder; reports carry it.
CREATE TABLE control.lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    epoch bigint NOT NULL,
    expire_time timestamptz NOT NULL
);

-- Which life of sluice.control the outbox was published to.
CREATE TABLE control.control_log (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    topic_id text NOT NULL
);
