"""A consumer of the group: pulls, takes in, acknowledges what is done and refuses what failed, in batches.

It may die anywhere. Before the effect: the lease ends and the record comes again. Between effect and acknowledgement: it comes
again too, and the inbox drops it.
"""

from __future__ import annotations

import http.client
import sys
from collections import defaultdict
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable

import psycopg

from .api import ApiError, Sluice
from .events import Event, event_in
from .faults import Stall
from .geocoder import AddressUnknown, Geocoder
from .search import FAILED, Delivery, Search
from .settings import GROUP, Settings
from .stopping import Stopping

MAX_RECORDS = 50
WAIT_S = 2.0
SETTLE_TRIES = 5


class Batch:
    """What became of the records of one pull."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.refused: dict[str, list[tuple[str, Event, Delivery]]] = defaultdict(list)


def run(settings: Settings, name: str, stopping: Stopping) -> None:
    """Consumes until asked to stop."""
    stall = Stall.from_environment()
    sluice = settings.sluice(stop=stopping)
    taken = 0
    with settings.connect() as db, settings.connect() as geocoders:
        search = Search(db, Geocoder(geocoders))
        while not stopping():
            try:
                records = sluice.pull(GROUP, MAX_RECORDS, WAIT_S)
            except (ApiError, OSError, http.client.HTTPException) as error:
                if isinstance(error, ApiError) and not error.retriable:
                    raise
                print(f"pull: {error}", file=sys.stderr, flush=True)
                continue
            batch = _take(search, name, records)
            taken += len(batch.done)
            if records and not batch.refused:
                stall.here(taken)
            _settle(sluice, search, batch)


def _take(search: Search, name: str, records: list[dict[str, Any]]) -> Batch:
    received_at = datetime.now(timezone.utc)
    batch = Batch()
    for received in records:
        record, ack_id = received["record"], received["ackId"]
        event = event_in(record)
        delivery = Delivery(
            consumer=name,
            partition=int(record.get("partition", 0)),
            offset=int(record.get("offset", 0)),
            attempt=int(received["attempt"]),
            received_at=received_at,
        )
        try:
            search.take(event, delivery)
        except AddressUnknown as error:
            batch.refused[str(error)].append((ack_id, event, delivery))
        except psycopg.errors.DeadlockDetected:
            # Neither done nor refused: it comes again when its lease ends.
            print(f"deadlock at {event.message_id}", file=sys.stderr, flush=True)
        else:
            batch.done.append(ack_id)
    return batch


def _settle(sluice: Sluice, search: Search, batch: Batch) -> None:
    """Tells Sluice. What it does not hear of comes again."""
    for reason, refused in batch.refused.items():
        _told(partial(sluice.nack, GROUP, reason=reason), [ack_id for ack_id, _, _ in refused])
        # The diary of a failure is written behind the refusal, from which the backoff counts.
        for _, event, delivery in refused:
            search.note(event, delivery, FAILED, reason)
    _told(partial(sluice.ack, GROUP), batch.done)


def _told(call: Callable[[list[str]], list[dict[str, Any]]], ack_ids: list[str]) -> None:
    """Settles ids; those that could not be stored in time are tried again."""
    for _ in range(SETTLE_TRIES):
        if not ack_ids:
            return
        try:
            results = call(ack_ids)
        except (ApiError, OSError, http.client.HTTPException) as error:
            print(f"not settled, so they come again: {error}", file=sys.stderr, flush=True)
            return
        outcomes = list(zip(ack_ids, (result["outcome"] for result in results), strict=True))
        stale = sum(1 for _, outcome in outcomes if outcome == "SETTLE_OUTCOME_STALE_LEASE")
        if stale:
            print(f"{stale} leases were over: these come again", file=sys.stderr, flush=True)
        if any(outcome == "SETTLE_OUTCOME_INVALID" for _, outcome in outcomes):
            raise RuntimeError("an ack id that was just delivered is called invalid")
        ack_ids = [ack_id for ack_id, outcome in outcomes if outcome == "SETTLE_OUTCOME_UNAVAILABLE"]
