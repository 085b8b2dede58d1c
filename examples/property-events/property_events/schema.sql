-- Three owners, a schema each. In a real company they would be three databases: nothing here reads across them but the proof
-- at the end of a run.

-- The property service.
CREATE SCHEMA service;

CREATE TABLE service.property (
    property_id text PRIMARY KEY,
    version     integer NOT NULL,
    address     text NOT NULL,
    price       bigint NOT NULL,
    status      text NOT NULL CHECK (status IN ('ACTIVE', 'PENDING', 'SOLD')),
    metadata    jsonb NOT NULL,
    views       integer NOT NULL DEFAULT 0
);

-- Written in the transaction that changes the property; read by the relay.
CREATE TABLE service.outbox (
    position      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id    uuid NOT NULL UNIQUE,
    property_id   text NOT NULL,
    version       integer NOT NULL,
    envelope      jsonb NOT NULL,
    written_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at       timestamptz,
    partition     integer,
    record_offset bigint,
    UNIQUE (property_id, version)
);
CREATE INDEX outbox_unsent ON service.outbox (position) WHERE sent_at IS NULL;

-- The search.
CREATE SCHEMA search;

-- Every event that was taken in, once. `waiting` holds one whose predecessor is missing (it lies in the dead letters).
CREATE TABLE search.inbox (
    message_id    uuid PRIMARY KEY,
    property_id   text NOT NULL,
    version       integer NOT NULL,
    received_at   timestamptz NOT NULL,
    waiting       jsonb,
    applied_order bigint UNIQUE,
    applied_at    timestamptz,
    CHECK ((waiting IS NULL) <> (applied_order IS NULL)),
    UNIQUE (property_id, version)
);
CREATE SEQUENCE search.applied_order;

-- The last version applied of each property; its row is the lock under which the next one is applied.
CREATE TABLE search.progress (
    property_id text PRIMARY KEY,
    version     integer NOT NULL
);

CREATE TABLE search.property (
    property_id text PRIMARY KEY,
    version     integer NOT NULL,
    address     text NOT NULL,
    price       bigint NOT NULL,
    status      text NOT NULL,
    metadata    jsonb NOT NULL,
    views       integer NOT NULL DEFAULT 0,
    latitude    double precision NOT NULL,
    longitude   double precision NOT NULL
);

CREATE TABLE search.saved_search (
    saved_search_id integer PRIMARY KEY,
    user_name       text NOT NULL,
    status          text NOT NULL,
    max_price       bigint NOT NULL
);

-- Who is to be told of what. Without a unique key on purpose: an event applied twice would stand here twice.
CREATE TABLE search.interested (
    saved_search_id integer NOT NULL REFERENCES search.saved_search,
    user_name       text NOT NULL,
    property_id     text NOT NULL,
    version         integer NOT NULL,
    message_id      uuid NOT NULL
);

-- The diary of the consumers: every delivery, what became of it, when.
CREATE TABLE search.delivery (
    delivery_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer      text NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint NOT NULL,
    attempt       integer NOT NULL,
    message_id    uuid NOT NULL,
    property_id   text NOT NULL,
    version       integer NOT NULL,
    outcome       text NOT NULL CHECK (outcome IN ('APPLIED', 'WAITING', 'REPEAT', 'FAILED')),
    reason        text,
    received_at   timestamptz NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX delivery_record ON search.delivery (partition, record_offset, attempt);

-- The geocoder, somebody else's service that the search depends on.
CREATE SCHEMA geocoder;

-- Addresses it cannot find: so many times more, or (null) until somebody corrects its map.
CREATE TABLE geocoder.unknown (
    address       text PRIMARY KEY,
    failures_left integer
);
