"""The property service: each change of a property and its event are written in one transaction.

So there is never a change without its event or an event without its change, whatever dies when. Getting the event out is the
relay's work.
"""

from __future__ import annotations

from datetime import datetime, timezone
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from .events import ACTIVE, CREATED, DELETED, UPDATED, VIEWED, Cause, Event, Payload

CHANNEL = "property_outbox"


class PropertyService:
    """Commands on properties. Ids come from the generator, so that a seeded run repeats."""

    def __init__(self, db: psycopg.Connection, ids: Random) -> None:
        self._db = db
        self._ids = ids

    def new_id(self) -> UUID:
        """A UUID of version 4."""
        return UUID(int=self._ids.getrandbits(128), version=4)

    def create(self, property_id: str, address: str, price: int, metadata: dict[str, Any], cause: Cause) -> Event:
        """Puts a property on the market."""
        payload = Payload(address, price, ACTIVE, metadata)
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO service.property (property_id, version, address, price, status, metadata)"
                " VALUES (%s, 1, %s, %s, %s, %s)",
                (property_id, address, price, ACTIVE, Jsonb(metadata)),
            )
            return self._write(CREATED, property_id, 1, payload, cause)

    def update(self, property_id: str, cause: Cause, **changes: Any) -> Event:
        """Changes address, price, status or metadata."""
        with self._db.transaction():
            version, payload = self._locked(property_id)
            payload = payload.but(**changes)
            self._db.execute(
                "UPDATE service.property SET version = %s, address = %s, price = %s, status = %s, metadata = %s"
                " WHERE property_id = %s",
                (version + 1, payload.address, payload.price, payload.status, Jsonb(payload.metadata), property_id),
            )
            return self._write(UPDATED, property_id, version + 1, payload, cause)

    def view(self, property_id: str, cause: Cause) -> Event:
        """Somebody looks at a property."""
        with self._db.transaction():
            version, payload = self._locked(property_id)
            self._db.execute(
                "UPDATE service.property SET version = %s, views = views + 1 WHERE property_id = %s",
                (version + 1, property_id),
            )
            return self._write(VIEWED, property_id, version + 1, payload, cause)

    def delete(self, property_id: str, cause: Cause) -> Event:
        """Takes a property off the market; its event says what it last was."""
        with self._db.transaction():
            version, payload = self._locked(property_id)
            self._db.execute("DELETE FROM service.property WHERE property_id = %s", (property_id,))
            return self._write(DELETED, property_id, version + 1, payload, cause)

    def _locked(self, property_id: str) -> tuple[int, Payload]:
        # The lock makes the order of versions the order of positions in the outbox.
        row = self._db.execute(
            "SELECT version, address, price, status, metadata FROM service.property WHERE property_id = %s FOR UPDATE",
            (property_id,),
        ).fetchone()
        if row is None:
            raise KeyError(f"no property {property_id}")
        return row[0], Payload(*row[1:])

    def _write(self, kind: str, property_id: str, version: int, payload: Payload, cause: Cause) -> Event:
        event = Event(self.new_id(), cause, datetime.now(timezone.utc), kind, property_id, version, payload)
        self._db.execute(
            "INSERT INTO service.outbox (message_id, property_id, version, envelope) VALUES (%s, %s, %s, %s)",
            (event.message_id, property_id, version, Jsonb(event.to_json())),
        )
        # Heard by the relay when this commits.
        self._db.execute(f"NOTIFY {CHANNEL}")
        return event
