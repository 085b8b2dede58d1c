-- outside a transaction
-- What sweeping looks for, and what the removal of a row must find to keep its foreign keys. Partial where most rows are not
-- looked for.
CREATE INDEX CONCURRENTLY IF NOT EXISTS operation_ended ON control.operation (end_time) WHERE state <> 'RUNNING';
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_replaced ON control.outbox (replaced_time) WHERE replaced_time IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_gone ON control.outbox (publish_time)
    WHERE gone AND payload IS NOT NULL AND replaced_time IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_tombstone ON control.outbox (publish_time) WHERE payload IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS tenant_deleting ON control.tenant (uid) WHERE state = 'DELETING';
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_key_active ON control.api_key (tenant_uid, uid) WHERE state = 'ACTIVE';
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_key_expiring ON control.api_key (expire_time)
    WHERE state = 'ACTIVE' AND expire_time IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS topic_of_namespace ON control.topic (namespace_uid);
CREATE INDEX CONCURRENTLY IF NOT EXISTS consumer_group_of_namespace ON control.consumer_group (namespace_uid);
-- A request id is looked for whatever the method was.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idempotency_by_request_id ON control.idempotency (request_id);
