"""The relay: publishes what lies in the outbox and marks what Sluice answered PERSISTED.

Promises: nothing is lost, and the events of a property reach the topic in the order of their versions. It does not promise
"once": killed between publishing and marking, the next relay publishes the same again.

- One relay works at a time. A second one waits for the advisory lock, which goes with the session of the first.
- One request holds at most one event of a property. If that one is not persisted, no later event of the property is ahead
  of it.
"""

from __future__ import annotations

import http.client
import sys
from typing import Any

import psycopg

from .api import ApiError, Sluice
from .events import record_of
from .faults import Stall
from .property_service import CHANNEL
from .settings import TOPIC, Settings
from .stopping import Stopping

ADVISORY_LOCK = 7_301_001
LOOK_AHEAD = 1_000
BATCH = 500
LISTEN_S = 1.0
PAUSE_AFTER_FAILURE_S = 0.5

Row = tuple[int, str, dict[str, Any]]


def run(settings: Settings, stopping: Stopping) -> None:
    """Relays until asked to stop."""
    stall = Stall.from_environment()
    sluice = settings.sluice(stop=stopping)
    with settings.connect() as db:
        if not _lead(db, stopping):
            return
        db.execute(f"LISTEN {CHANNEL}")
        sent = 0
        while not stopping():
            batch = next_batch(db)
            marked = publish(db, sluice, batch, sent, stall) if batch else 0
            sent += marked
            if not marked:
                wait = PAUSE_AFTER_FAILURE_S if batch else LISTEN_S
                for _ in db.notifies(timeout=wait, stop_after=1):
                    pass


def _lead(db: psycopg.Connection, stopping: Stopping) -> bool:
    """Waits to be the one relay."""
    while not stopping():
        row = db.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,)).fetchone()
        if row and row[0]:
            return True
        for _ in db.notifies(timeout=0.2):
            pass
    return False


def next_batch(db: psycopg.Connection) -> list[Row]:
    """The oldest unsent events, one per property."""
    rows = db.execute(
        "SELECT position, property_id, envelope FROM service.outbox WHERE sent_at IS NULL ORDER BY position LIMIT %s",
        (LOOK_AHEAD,),
    ).fetchall()
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row[1], row)
    return list(first.values())[:BATCH]


def publish(db: psycopg.Connection, sluice: Sluice, batch: list[Row], sent: int, stall: Stall) -> int:
    """Publishes a batch and marks what is in the log; how many that were."""
    try:
        results = sluice.produce(TOPIC, [record_of(envelope) for _, _, envelope in batch])
    except (ApiError, OSError, http.client.HTTPException) as error:
        # Perhaps all of it is in the log, perhaps nothing: it is published again.
        print(f"not published: {error}", file=sys.stderr, flush=True)
        return 0
    stall.here(sent + len(batch))
    persisted = [
        (result.get("partition", 0), result.get("offset"), position)
        for (position, _, _), result in zip(batch, results, strict=True)
        if result["outcome"] == "OUTCOME_PERSISTED"
    ]
    with db.transaction(), db.cursor() as cursor:
        cursor.executemany(
            "UPDATE service.outbox SET sent_at = clock_timestamp(), partition = %s, record_offset = %s WHERE position = %s",
            persisted,
        )
    return len(persisted)
