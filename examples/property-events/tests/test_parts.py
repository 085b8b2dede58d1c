"""Inbox, outbox and relay order, on a real PostgreSQL."""

from __future__ import annotations

import tempfile
import threading
import unittest
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from typing import Any

import psycopg

import property_events
from property_events import geocoder, proof, relay
from property_events.api import ApiError, Sluice
from property_events.events import Cause, Event, event_in, record_of
from property_events.faults import Stall
from property_events.geocoder import AddressUnknown, Geocoder
from property_events.machine import postgres
from property_events.machine.children import Children
from property_events.property_service import PropertyService
from property_events.search import APPLIED, REPEAT, WAITING, Delivery, Search

SCHEMA = Path(property_events.__file__).parent / "schema.sql"


class Parts(unittest.TestCase):
    """One PostgreSQL for all, a new schema for each."""

    _folder: tempfile.TemporaryDirectory[str]
    _children: Children
    _database: str

    @classmethod
    def setUpClass(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory(prefix="property-events-")
        cls.addClassCleanup(cls._folder.cleanup)
        folder = Path(cls._folder.name)
        folder.chmod(0o755)
        cls._children = Children(folder)
        cls.addClassCleanup(cls._children.stop_all)
        cls._database = postgres.start(cls._children, folder / "postgres")

    def setUp(self) -> None:
        self.db = self.session()
        self.db.execute("DROP SCHEMA IF EXISTS service, search, geocoder CASCADE")
        self.db.execute(SCHEMA.read_bytes())
        self.service = PropertyService(self.db, Random(7))
        self.search = Search(self.session(), Geocoder(self.session()))

    def session(self) -> psycopg.Connection:
        """A session that ends with the test."""
        session = psycopg.connect(self._database, autocommit=True)
        self.addCleanup(session.close)
        return session

    def cause(self) -> Cause:
        """Of some command."""
        return Cause(self.service.new_id(), self.service.new_id())

    def three_events(self) -> list[Event]:
        """A property made, changed and viewed."""
        return [
            self.service.create("p-1", "1 Alder Way", 300_000, {"bedrooms": 3}, self.cause()),
            self.service.update("p-1", self.cause(), price=280_000),
            self.service.view("p-1", self.cause()),
        ]

    def take(self, event: Event, attempt: int = 1) -> str:
        """A delivery of it."""
        return self.search.take(event, Delivery("test", 0, event.version, attempt, datetime.now(timezone.utc)))

    def publish(self, answer: Any) -> int:
        """The relay's next batch, answered so; how many were marked."""

        class Answering(Sluice):
            def produce(self, topic: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
                if isinstance(answer, Exception):
                    raise answer
                return [{"outcome": answer[record["keyText"]]} for record in records]

        sluice = Answering("http://127.0.0.1:1", "", "")
        return relay.publish(self.db, sluice, relay.next_batch(self.db), 0, Stall(None, None))

    def test_a_delivery_that_comes_again_has_no_effect(self) -> None:
        for event in self.three_events():
            self.assertEqual(self.take(event), APPLIED)
            self.assertEqual(self.take(event), REPEAT)
        self.db.execute("UPDATE service.outbox SET sent_at = now()")
        self.assertEqual(proof.differences(self.db), [])

    def test_an_event_behind_a_gap_waits_and_is_applied_with_what_fills_it(self) -> None:
        first, second, third = self.three_events()
        self.assertEqual([self.take(third), self.take(second), self.take(second)], [WAITING, WAITING, REPEAT])
        self.assertEqual(proof.counts(self.db)["applied"], 0)
        self.assertEqual(self.take(first), APPLIED)
        self.db.execute("UPDATE service.outbox SET sent_at = now()")
        self.assertEqual(proof.differences(self.db), [])

    def test_a_failure_leaves_nothing_and_the_next_attempt_may_succeed(self) -> None:
        geocoder.lose(self.db, "1 Alder Way", 2)
        first = self.three_events()[0]
        for attempt in (1, 2):
            with self.assertRaises(AddressUnknown):
                self.take(first, attempt)
        self.assertEqual(proof.counts(self.db)["inbox"], 0)
        self.assertEqual(self.take(first, 3), APPLIED)

    def test_two_that_take_the_same_event_at_once_apply_it_once(self) -> None:
        event = self.three_events()[0]
        searches = [Search(self.session(), Geocoder(self.session())) for _ in range(8)]
        found: list[str] = []
        now = datetime.now(timezone.utc)
        threads = [
            threading.Thread(target=lambda s=search: found.append(s.take(event, Delivery("test", 0, 1, 1, now))))
            for search in searches
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual(sorted(found), [APPLIED] + [REPEAT] * 7)

    def test_a_change_that_fails_writes_neither_property_nor_event(self) -> None:
        with self.assertRaises(psycopg.errors.UniqueViolation):
            self.three_events()
            self.service.create("p-1", "again", 1, {}, self.cause())
        with self.assertRaises(psycopg.errors.CheckViolation):
            self.service.update("p-1", self.cause(), status="BURNT DOWN")
        self.assertEqual(proof.counts(self.db)["events"], 3)

    def test_the_relay_keeps_the_order_of_a_property_when_records_fail(self) -> None:
        self.three_events()
        self.service.create("p-2", "2 Alder Way", 400_000, {}, self.cause())
        batch = [(row[1], row[2]["aggregate"]["version"]) for row in relay.next_batch(self.db)]
        self.assertEqual(batch, [("p-1", 1), ("p-2", 1)])
        marked = self.publish({"p-1": "OUTCOME_POSSIBLY_PERSISTED", "p-2": "OUTCOME_PERSISTED"})
        self.assertEqual(marked, 1)
        self.assertEqual([row[1] for row in relay.next_batch(self.db)], ["p-1"])
        self.assertEqual(self.publish(ApiError(503, "OVERLOADED", "")), 0)
        self.assertEqual(self.publish({"p-1": "OUTCOME_PERSISTED"}), 1)
        self.assertEqual([row[2]["aggregate"]["version"] for row in relay.next_batch(self.db)], [2])

    def test_the_envelope_survives_the_way_and_another_version_is_refused(self) -> None:
        event = self.three_events()[1]
        record = record_of(event.to_json())
        self.assertEqual(event_in(record), event)
        record["headers"][1]["text"] = "2"
        with self.assertRaises(ValueError):
            event_in(record)


if __name__ == "__main__":
    unittest.main()
