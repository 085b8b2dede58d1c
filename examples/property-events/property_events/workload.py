"""A market at work: creates, changes, views and deletes properties, the same for the same seed.

Some addresses are unknown to the geocoder: a few for good (until its map is corrected), a few for one, two or three attempts. Each
of those is followed at once by more changes of the same property, which must wait for it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

from . import geocoder
from .events import ACTIVE, PENDING, SOLD, Cause
from .property_service import PropertyService
from .settings import Settings
from .stopping import Stopping

STREETS = ("Alder Way", "Birch Street", "Cedar Lane", "Dogwood Drive", "Elm Avenue", "Fir Court", "Grove Road", "Hazel Row")
KINDS = ("house", "flat", "loft", "cottage")
FEATURES = ("garden", "garage", "balcony", "fireplace", "pool", "lift")
CREATE, VIEW, DELETE = 0.15, 0.50, 0.02


@dataclass(frozen=True)
class Plan:
    """How much."""

    seed: int
    properties: int
    events: int
    per_second: int
    # Properties with an address unknown for good, and for some attempts.
    lost: int
    shaky: int


class Market:
    """The people who use the property service."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._plan = plan
        self._random = Random(plan.seed)
        self._db = settings.connect()
        self._service = PropertyService(self._db, self._random)
        self._live: list[str] = []
        self._made = 0
        self._events = 0
        # Which properties, by number, get an unknown address: among the first ones, so that retries end in time.
        unlucky = self._random.sample(range(2, max(plan.properties // 3, plan.lost + plan.shaky + 2)), plan.lost + plan.shaky)
        self._failures: dict[int, int | None] = {number: None for number in unlucky[: plan.lost]}
        self._failures.update({number: 1 + i % 3 for i, number in enumerate(unlucky[plan.lost :])})

    def run(self, stopping: Stopping) -> None:
        """Until the plan is done."""
        began = time.monotonic()
        while self._events < self._plan.events and not stopping():
            self._step()
            ahead = began + self._events / self._plan.per_second - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        self._db.close()

    def _step(self) -> None:
        dice = self._random.random()
        # The unlucky ones come early: every property is made within the first half.
        behind = self._made < self._plan.properties * 2 * self._events / self._plan.events
        if not self._live or (self._made < self._plan.properties and (behind or dice < CREATE)):
            self._create()
            return
        property_id = self._random.choice(self._live)
        if dice < CREATE + VIEW:
            self._service.view(property_id, self._cause())
        elif dice < CREATE + VIEW + DELETE and len(self._live) > self._plan.properties // 2:
            self._service.delete(property_id, self._cause())
            self._live.remove(property_id)
        else:
            self._service.update(property_id, self._cause(), **self._change())
        self._events += 1

    def _create(self) -> None:
        number, self._made = self._made, self._made + 1
        property_id = f"p-{number:05}"
        conversation = self._service.new_id()
        address = self._address(number)
        # Of the unlucky ones, every second is made with a good address and moves to the bad one.
        unlucky, moves = number in self._failures, number % 2 == 0
        first = self._address(number + 1_000_000) if unlucky and moves else address
        if unlucky:
            geocoder.lose(self._db, address, self._failures[number])
        metadata = {
            "kind": self._random.choice(KINDS),
            "bedrooms": self._random.randint(1, 6),
            "features": sorted(self._random.sample(FEATURES, self._random.randint(0, 3))),
        }
        price = self._random.randrange(150_000, 1_200_000, 1_000)
        self._service.create(property_id, first, price, metadata, self._cause(conversation))
        self._live.append(property_id)
        self._events += 1
        if unlucky:
            if moves:
                self._service.update(property_id, self._cause(conversation), address=address)
            self._service.update(property_id, self._cause(conversation), price=price - 5_000)
            self._service.view(property_id, self._cause(conversation))
            self._events += 2 + moves

    def _change(self) -> dict[str, Any]:
        if self._random.random() < 0.6:
            return {"price": self._random.randrange(150_000, 1_200_000, 1_000)}
        return {"status": self._random.choice((ACTIVE, PENDING, SOLD))}

    def _address(self, number: int) -> str:
        return f"{number + 1} {STREETS[number % len(STREETS)]}"

    def _cause(self, conversation: UUID | None = None) -> Cause:
        return Cause(conversation or self._service.new_id(), self._service.new_id())


def save_searches(settings: Settings, seed: int, count: int) -> None:
    """Users say what they look for."""
    random = Random(seed)
    with settings.connect() as db, db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO search.saved_search VALUES (%s, %s, %s, %s)",
            [
                (i, f"user-{i:02}", random.choice((ACTIVE, ACTIVE, PENDING, SOLD)), random.randrange(200_000, 700_000, 10_000))
                for i in range(count)
            ],
        )
