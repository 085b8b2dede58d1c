"""The event and its envelope, as they lie in the outbox, in the topic and in the inbox."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

CREATED, UPDATED, DELETED, VIEWED = "CREATED", "UPDATED", "DELETED", "VIEWED"
ACTIVE, PENDING, SOLD = "ACTIVE", "PENDING", "SOLD"

# The version of this envelope, not of a property: a reader that does not know it must not guess.
ENVELOPE_VERSION = "1"


@dataclass(frozen=True)
class Cause:
    """Where a change comes from: the conversation it belongs to, and the command that caused it."""

    correlation_id: UUID
    causation_id: UUID


@dataclass(frozen=True)
class Payload:
    """A property as the change left it."""

    address: str
    price: int
    status: str
    metadata: dict[str, Any]

    def but(self, **changes: Any) -> Payload:
        """The same with some values changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Event:
    """One change of one property. The versions of a property are 1, 2, 3 … without a gap."""

    message_id: UUID
    cause: Cause
    time: datetime
    type: str
    property_id: str
    version: int
    payload: Payload

    def to_json(self) -> dict[str, Any]:
        """The envelope."""
        return {
            "message_id": str(self.message_id),
            "correlation_id": str(self.cause.correlation_id),
            "causation_id": str(self.cause.causation_id),
            "time": self.time.astimezone(timezone.utc).isoformat(),
            "type": self.type,
            "aggregate": {"id": self.property_id, "version": self.version},
            "payload": {
                "address": self.payload.address,
                "price": self.payload.price,
                "status": self.payload.status,
                "metadata": self.payload.metadata,
            },
        }

    @staticmethod
    def from_json(envelope: dict[str, Any]) -> Event:
        """Reads an envelope. JSON has one kind of number, so whole ones may come back as 3.0."""
        payload = envelope["payload"]
        return Event(
            message_id=UUID(envelope["message_id"]),
            cause=Cause(UUID(envelope["correlation_id"]), UUID(envelope["causation_id"])),
            time=datetime.fromisoformat(envelope["time"]),
            type=envelope["type"],
            property_id=envelope["aggregate"]["id"],
            version=int(envelope["aggregate"]["version"]),
            payload=Payload(payload["address"], int(payload["price"]), payload["status"], payload["metadata"]),
        )


def record_of(envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope as a record for Sluice: the key is the property's id, so its events stay in order."""
    return {
        "keyText": envelope["aggregate"]["id"],
        "valueJson": envelope,
        "headers": [
            {"name": "event-type", "text": envelope["type"]},
            {"name": "event-version", "text": ENVELOPE_VERSION},
        ],
    }


def event_in(record: dict[str, Any]) -> Event:
    """The event in a record that Sluice delivered with encoding JSON."""
    headers = {header["name"]: header.get("text") for header in record.get("headers", [])}
    if headers.get("event-version") != ENVELOPE_VERSION:
        raise ValueError(f"event-version {headers.get('event-version')!r}: this reader knows {ENVELOPE_VERSION!r}")
    event = Event.from_json(record["valueJson"])
    if headers.get("event-type") != event.type:
        raise ValueError(f"the header says {headers.get('event-type')!r}, the envelope {event.type!r}")
    return event
