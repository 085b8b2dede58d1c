"""The proof: what must hold in the database when everything has come to rest. Each check names the rows that break it."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from .events import CREATED, UPDATED
from .settings import FIRST_BACKOFF_S, MAX_ATTEMPTS

# Around the wait that was asked for: 20 % of it, and how long a record that is due may stand behind others when consumers lag.
EARLY, LATE, LATE_MORE_S = 0.95, 1.2, 3.0

# What is said of rows that are found, and the query for them. None may find any.
CHECKS = {
    "events never marked as sent": "SELECT message_id::text FROM service.outbox WHERE sent_at IS NULL",
    "events that never reached the inbox": """
        SELECT message_id::text FROM service.outbox EXCEPT SELECT message_id::text FROM search.inbox""",
    "events in the inbox that nobody wrote": """
        SELECT message_id::text FROM search.inbox EXCEPT SELECT message_id::text FROM service.outbox""",
    "events taken in and not applied": """
        SELECT property_id || ' version ' || version FROM search.inbox WHERE applied_order IS NULL""",
    "events with another number of APPLIED or WAITING deliveries than one": """
        SELECT o.message_id || ': ' || count(d.delivery_id) FROM service.outbox o
        LEFT JOIN search.delivery d ON d.message_id = o.message_id AND d.outcome IN ('APPLIED', 'WAITING')
        GROUP BY o.message_id HAVING count(d.delivery_id) <> 1""",
    "versions applied out of order": """
        SELECT property_id || ' version ' || version FROM (
            SELECT property_id, version, applied_order, row_number() OVER property AS place,
                   lag(applied_order) OVER property AS before
            FROM search.inbox WINDOW property AS (PARTITION BY property_id ORDER BY version)) ordered
        WHERE applied_order < before OR version <> place""",
    "properties that the search does not show as the service has them": """
        SELECT 'service has ' || p::text FROM (
            SELECT property_id, version, address, price, status, metadata, views FROM service.property
            EXCEPT SELECT property_id, version, address, price, status, metadata, views FROM search.property) p
        UNION ALL
        SELECT 'search has ' || p::text FROM (
            SELECT property_id, version, address, price, status, metadata, views FROM search.property
            EXCEPT SELECT property_id, version, address, price, status, metadata, views FROM service.property) p""",
    "users not told, or told twice": f"""
        WITH expected AS (
            SELECT s.saved_search_id, o.message_id FROM service.outbox o JOIN search.saved_search s
            ON s.status = o.envelope->'payload'->>'status' AND s.max_price >= (o.envelope->'payload'->>'price')::bigint
            WHERE o.envelope->>'type' IN ('{CREATED}', '{UPDATED}')),
        told AS (SELECT saved_search_id, message_id FROM search.interested)
        SELECT 'missing ' || m::text FROM (TABLE expected EXCEPT ALL TABLE told) m
        UNION ALL SELECT 'too many ' || m::text FROM (TABLE told EXCEPT ALL TABLE expected) m""",
    "events delivered before an earlier one of their property had ended its retries": """
        SELECT later.property_id || ' version ' || later.version FROM search.delivery later JOIN search.delivery failed
        ON failed.property_id = later.property_id AND failed.version < later.version
        AND failed.outcome = 'FAILED' AND failed.received_at > later.received_at""",
}


@dataclass(frozen=True)
class Wait:
    """How long refused records stayed away after their n-th attempt, in seconds."""

    attempt: int
    count: int
    shortest: float
    median: float
    longest: float

    @property
    def asked(self) -> float:
        """The group's backoff."""
        return FIRST_BACKOFF_S * 2.0 ** (self.attempt - 1)


@dataclass(frozen=True)
class KeyWait:
    """An event that waited for an earlier one of its property."""

    property_id: str
    failed_version: int
    failures: int
    retried_s: float
    next_version: int
    next_type: str
    next_after_s: float


def differences(db: psycopg.Connection) -> list[str]:
    """What does not hold; empty is the proof."""
    found = []
    for what, query in CHECKS.items():
        rows = [row[0] for row in db.execute(query.encode()).fetchall()]
        if rows:
            found.append(f"{what}: {len(rows)}, e.g. {rows[0]}")
    return found


def waits(db: psycopg.Connection) -> list[Wait]:
    """Between a refusal and the next delivery of the same record, by attempt."""
    rows = db.execute(
        """
        SELECT attempt, count(*)::int, min(wait)::float8, percentile_cont(0.5) WITHIN GROUP (ORDER BY wait), max(wait)::float8
        FROM (SELECT failed.attempt, extract(epoch FROM next.received_at - failed.settled_at)::float8 AS wait
              FROM search.delivery failed JOIN search.delivery next USING (partition, record_offset)
              WHERE failed.outcome = 'FAILED' AND next.attempt = failed.attempt + 1) waited
        GROUP BY attempt ORDER BY attempt"""
    ).fetchall()
    return [Wait(*row) for row in rows]


def wait_differences(measured: list[Wait]) -> list[str]:
    """Waits other than the group's backoff."""
    found = []
    if [wait.attempt for wait in measured] != list(range(1, MAX_ATTEMPTS)):
        found.append(f"retries seen after attempts {[wait.attempt for wait in measured]}, not after 1 to {MAX_ATTEMPTS - 1}")
    for wait in measured:
        if wait.shortest < wait.asked * EARLY:
            found.append(f"a record came back {wait.shortest:.2f} s after attempt {wait.attempt}, before {wait.asked:.0f} s")
        if wait.median > wait.asked * LATE + LATE_MORE_S:
            found.append(f"records came back {wait.median:.2f} s after attempt {wait.attempt}, not about {wait.asked:.0f} s")
    return found


def lost_messages(db: psycopg.Connection) -> set[str]:
    """The events that must end in the dead letters while the geocoder's map is wrong."""
    rows = db.execute(
        """
        SELECT DISTINCT ON (o.property_id) o.message_id::text FROM service.outbox o
        JOIN geocoder.unknown u ON u.address = o.envelope->'payload'->>'address' AND u.failures_left IS NULL
        WHERE o.envelope->>'type' IN (%s, %s) ORDER BY o.property_id, o.version""",
        (CREATED, UPDATED),
    ).fetchall()
    return {row[0] for row in rows}


def key_wait(db: psycopg.Connection) -> KeyWait | None:
    """The longest time that an event waited for an earlier one of its property."""
    row = db.execute(
        """
        SELECT failed.property_id, failed.version, failed.failures, extract(epoch FROM failed.last - failed.first)::float8,
               next.version, o.envelope->>'type', extract(epoch FROM next.received_at - failed.first)::float8
        FROM (SELECT property_id, version, count(*)::int AS failures, min(received_at) AS first, max(received_at) AS last
              FROM search.delivery WHERE outcome = 'FAILED' GROUP BY property_id, version) failed
        JOIN LATERAL (SELECT version, message_id, min(received_at) AS received_at FROM search.delivery d
              WHERE d.property_id = failed.property_id AND d.version = failed.version + 1 GROUP BY version, message_id) next
              ON true
        JOIN service.outbox o ON o.message_id = next.message_id AND o.sent_at < failed.last
        ORDER BY failed.failures DESC, failed.last - failed.first DESC, failed.property_id LIMIT 1"""
    ).fetchone()
    return KeyWait(*row) if row else None


def counts(db: psycopg.Connection) -> dict[str, int]:
    """Figures for the table."""
    queries = {
        "events": "SELECT count(*) FROM service.outbox",
        "properties": "SELECT count(DISTINCT property_id) FROM service.outbox",
        "sent": "SELECT count(*) FROM service.outbox WHERE sent_at IS NOT NULL",
        "inbox": "SELECT count(*) FROM search.inbox",
        "applied": "SELECT count(*) FROM search.inbox WHERE applied_order IS NOT NULL",
        "waiting": "SELECT count(*) FROM search.inbox WHERE waiting IS NOT NULL",
        "waited": "SELECT count(*) FROM search.delivery WHERE outcome = 'WAITING'",
        "deliveries": "SELECT count(*) FROM search.delivery",
        "repeats": "SELECT count(*) FROM search.delivery WHERE outcome = 'REPEAT'",
        "failed": "SELECT count(*) FROM search.delivery WHERE outcome = 'FAILED'",
        "told": "SELECT count(*) FROM search.interested",
    }
    union = " UNION ALL ".join(f"SELECT '{name}', ({query})" for name, query in queries.items())
    return {name: int(count) for name, count in db.execute(union.encode()).fetchall()}
