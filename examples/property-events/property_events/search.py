"""The search: takes events in, each exactly once, and keeps what can be found and who is to be told.

Promise of Search.take: the message id goes into the inbox in the transaction that has the effect, so a delivery that comes
again finds it and does nothing. The versions of a property are applied in order and without a gap: Sluice delivers them in
order (ordering KEY), and an event whose predecessor lies in the dead letters waits in the inbox until that one is redriven.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.types.json import Jsonb

from .events import CREATED, DELETED, UPDATED, VIEWED, Event
from .geocoder import Geocoder

APPLIED, WAITING, REPEAT, FAILED = "APPLIED", "WAITING", "REPEAT", "FAILED"


@dataclass(frozen=True)
class Delivery:
    """One delivery of an event."""

    consumer: str
    partition: int
    offset: int
    attempt: int
    received_at: datetime


class Search:
    """The search's part of the database."""

    def __init__(self, db: psycopg.Connection, geocoder: Geocoder) -> None:
        self._db = db
        self._geocoder = geocoder

    def take(self, event: Event, delivery: Delivery) -> str:
        """Takes an event in: APPLIED, WAITING or REPEAT. If it raises, nothing has happened."""
        with self._db.transaction():
            outcome = self._take(event, delivery.received_at)
            self.note(event, delivery, outcome, None)
            return outcome

    def note(self, event: Event, delivery: Delivery, outcome: str, reason: str | None) -> None:
        """Writes the diary."""
        self._db.execute(
            "INSERT INTO search.delivery (consumer, partition, record_offset, attempt, message_id, property_id, version,"
            " outcome, reason, received_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(delivery.consumer, delivery.partition, delivery.offset, delivery.attempt),
                *(event.message_id, event.property_id, event.version, outcome, reason, delivery.received_at),
            ),
        )

    def _take(self, event: Event, received_at: datetime) -> str:
        # Waits for whoever takes the same event in at the same moment, and sees what became of it.
        new = self._db.execute(
            "INSERT INTO search.inbox (message_id, property_id, version, received_at, waiting) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (message_id) DO NOTHING",
            (event.message_id, event.property_id, event.version, received_at, Jsonb(event.to_json())),
        )
        if new.rowcount == 0:
            return REPEAT
        done = self._done(event.property_id)
        if event.version > done + 1:
            return WAITING
        self._apply(event)
        self._apply_waiting(event.property_id, event.version)
        return APPLIED

    def _done(self, property_id: str) -> int:
        """The last version applied, locked."""
        row = self._db.execute(
            "INSERT INTO search.progress AS known VALUES (%s, 0)"
            " ON CONFLICT (property_id) DO UPDATE SET version = known.version RETURNING version",
            (property_id,),
        ).fetchone()
        if row is None:
            raise LookupError(f"progress of {property_id} has just been written")
        return int(row[0])

    def _apply_waiting(self, property_id: str, version: int) -> None:
        """Applies what has waited for this version, as far as there is no gap."""
        while True:
            version += 1
            row = self._db.execute(
                "SELECT waiting FROM search.inbox WHERE property_id = %s AND version = %s AND waiting IS NOT NULL",
                (property_id, version),
            ).fetchone()
            if row is None:
                return
            self._apply(Event.from_json(row[0]))

    def _apply(self, event: Event) -> None:
        if event.type in (CREATED, UPDATED):
            self._upsert(event)
            self._tell_interested(event)
        elif event.type == VIEWED:
            self._db.execute(
                "UPDATE search.property SET version = %s, views = views + 1 WHERE property_id = %s",
                (event.version, event.property_id),
            )
        elif event.type == DELETED:
            self._db.execute("DELETE FROM search.property WHERE property_id = %s", (event.property_id,))
        else:
            raise ValueError(f"an event of type {event.type!r}")
        self._db.execute(
            "UPDATE search.progress SET version = %s WHERE property_id = %s", (event.version, event.property_id)
        )
        self._db.execute(
            "UPDATE search.inbox SET waiting = NULL, applied_order = nextval('search.applied_order'),"
            " applied_at = clock_timestamp() WHERE message_id = %s",
            (event.message_id,),
        )

    def _upsert(self, event: Event) -> None:
        payload = event.payload
        known = self._db.execute(
            "SELECT latitude, longitude FROM search.property WHERE property_id = %s AND address = %s",
            (event.property_id, payload.address),
        ).fetchone()
        latitude, longitude = known or self._geocoder.locate(payload.address)
        self._db.execute(
            "INSERT INTO search.property (property_id, version, address, price, status, metadata, latitude, longitude)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (property_id) DO UPDATE SET (version, address, price, status, metadata, latitude, longitude) ="
            " (excluded.version, excluded.address, excluded.price, excluded.status, excluded.metadata,"
            " excluded.latitude, excluded.longitude)",
            (
                *(event.property_id, event.version, payload.address, payload.price, payload.status),
                *(Jsonb(payload.metadata), latitude, longitude),
            ),
        )

    def _tell_interested(self, event: Event) -> None:
        self._db.execute(
            "INSERT INTO search.interested (saved_search_id, user_name, property_id, version, message_id)"
            " SELECT saved_search_id, user_name, %s, %s, %s FROM search.saved_search WHERE status = %s AND max_price >= %s",
            (
                *(event.property_id, event.version, event.message_id),
                *(event.payload.status, event.payload.price),
            ),
        )
