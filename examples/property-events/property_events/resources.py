"""What the application has in Sluice: a namespace, two topics and a group, made through the API, and removed through it."""

from __future__ import annotations

from .api import Sluice
from .settings import ACK_DEADLINE_S, DEAD_LETTERS, FIRST_BACKOFF_S, GROUP, MAX_ATTEMPTS, TOPIC

PARTITIONS = 3


def make(sluice: Sluice) -> None:
    """Makes what is not there."""
    parent = f"namespaces/{sluice.namespace}"
    sluice.create("", "namespaces", sluice.namespace, {"displayName": "Property events"})
    sluice.create(parent, "topics", TOPIC, {"partitionCount": PARTITIONS})
    sluice.create(parent, "topics", DEAD_LETTERS, {"partitionCount": 1})
    group = {
        "topics": [f"{parent}/topics/{TOPIC}"],
        "startPosition": "START_POSITION_EARLIEST",
        "ordering": "ORDERING_KEY",
        "ackDeadline": f"{ACK_DEADLINE_S}s",
        "retryPolicy": {"maxAttempts": MAX_ATTEMPTS, "minimumBackoff": f"{FIRST_BACKOFF_S}s"},
        "deadLetterTopic": f"{parent}/topics/{DEAD_LETTERS}",
    }
    sluice.create(parent, "groups", GROUP, group)


def remove(sluice: Sluice) -> None:
    """Removes it with all records."""
    parent = f"namespaces/{sluice.namespace}"
    sluice.delete(f"{parent}/groups/{GROUP}")
    for topic in (TOPIC, DEAD_LETTERS):
        sluice.delete(f"{parent}/topics/{topic}")
    sluice.delete(parent)
