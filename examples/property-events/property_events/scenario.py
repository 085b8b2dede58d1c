"""The run: everything started, two processes killed on the way, the cause fixed, the dead letters redriven, the books compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import psycopg

from . import geocoder, proof, report, resources, workload
from .api import Sluice
from .crew import Crew
from .machine.children import Children
from .settings import DEAD_LETTERS, FIRST_BACKOFF_S, GROUP, MAX_ATTEMPTS, TOPIC, Settings
from .workload import Plan

LOOK_EVERY_S = 0.1
SETTLED_WITHIN_S = 120
REDRIVEN_WITHIN_S = 60
IDLE_WITHIN_S = 20
SAVED_SEARCHES = 40


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    table: str
    differences: list[str]


class Scenario:
    """One run against a Sluice and a database that are there."""

    def __init__(
        self, children: Children, settings: Settings, plan: Plan, kills: int, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._kills = kills
        self._say = say
        self._sluice = settings.sluice()
        self._crew = Crew(children, settings, plan, kills, folder, say)
        self._db: psycopg.Connection = settings.connect()

    def run(self) -> Outcome:
        """All of it."""
        self._db.execute((Path(__file__).parent / "schema.sql").read_bytes())
        workload.save_searches(self._settings, self._plan.seed, SAVED_SEARCHES)
        resources.make(self._sluice)
        self._say(f"made topic {TOPIC}, dead-letter topic {DEAD_LETTERS} and group {GROUP}")
        self._crew.start()
        self._say(f"service, relay and two consumers at work: {self._plan.events} events of {self._plan.properties} properties")

        # No time is set for the market itself: it has its pace.
        self._until("the service to end", lambda: self._crew.service_done, self._plan.events / 20 + SETTLED_WITHIN_S)
        expected = proof.lost_messages(self._db)
        self._say(f"the service is done; {len(expected)} events have an address that the geocoder does not find")
        self._until(
            "all but the dead letters to be taken in",
            lambda: self._crew.all_kills_done and self._count("inbox") == self._count("events") - len(expected),
            SETTLED_WITHIN_S,
        )
        letters = self._dead_letters(expected)
        self._say(f"{len(letters)} dead letters; {self._count('waiting')} later events of their properties wait in the inbox")
        self._say(report.letters(letters))

        found = letter_differences(letters, expected)
        corrected = geocoder.correct_the_map(self._db)
        redriven = self._sluice.redrive(GROUP, [letter["id"] for letter in letters])
        self._say(f"corrected {corrected} addresses in the geocoder's map and redrove {redriven} dead letters")
        if redriven != len(letters):
            found.append(f"{len(letters)} dead letters, {redriven} redriven")
        self._until(
            "all events to be applied", lambda: self._count("applied") == self._count("events"), REDRIVEN_WITHIN_S
        )
        self._until("the group's lag to be 0", lambda: self._lag() == 0, IDLE_WITHIN_S)
        found += self._crew.stop()
        found += self._compare(redriven)
        table = report.table(
            proof.counts(self._db), self._records_in_topic(), len(letters), redriven, self._crew.killed, self._db
        )
        self._db.close()
        return Outcome(table, found)

    def _compare(self, redriven: int) -> list[str]:
        found = proof.differences(self._db) + proof.wait_differences(proof.waits(self._db))
        counts = proof.counts(self._db)
        if counts["inbox"] != counts["events"]:
            found.append(f"{counts['events']} events in the outbox, {counts['inbox']} in the inbox")
        left = self._sluice.dead_letters(GROUP)
        if left:
            found.append(f"{len(left)} dead letters are left after the redrive")
        if proof.key_wait(self._db) is None:
            found.append("no event was seen to wait for an earlier one of its property")
        for name, times in self._crew.killed.items():
            if times != self._kills:
                found.append(f"{name} was killed {times} times, not {self._kills}")
        twice = self._records_in_topic() - counts["events"] - redriven
        if twice <= 0:
            found.append(f"the killed relay sent nothing twice: {twice}")
        elif counts["repeats"] <= twice:
            found.append(f"{counts['repeats']} repeats dropped; the relay sent {twice} twice, and the consumer's came on top")
        return found

    def _dead_letters(self, expected: set[str]) -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = []

        def complete() -> bool:
            letters[:] = self._sluice.dead_letters(GROUP)
            return {message_id(letter) for letter in letters} >= expected

        self._until("the dead letters to be listed", complete, SETTLED_WITHIN_S, every_s=0.5)
        return letters

    def _records_in_topic(self) -> int:
        partitions = self._sluice.topic_metadata(TOPIC)["partitions"]
        return sum(int(part.get("endOffset", 0)) - int(part.get("logStartOffset", 0)) for part in partitions)

    def _lag(self) -> int:
        return int(self._sluice.group_status(GROUP).get("lag", 0))

    def _count(self, name: str) -> int:
        return proof.counts(self._db)[name]

    def _until(self, what: str, condition: Callable[[], bool], within_s: float, every_s: float = LOOK_EVERY_S) -> None:
        until = time.monotonic() + within_s
        while True:
            self._crew.tick()
            if condition():
                return
            if time.monotonic() > until:
                raise TimeoutError(f"waited {within_s:.0f} s for {what}: {proof.counts(self._db)}")
            time.sleep(every_s)


def message_id(letter: dict[str, Any]) -> str:
    """Of the event in a dead letter."""
    return str(letter["record"]["valueJson"]["message_id"])


def letter_differences(letters: list[dict[str, Any]], expected: set[str]) -> list[str]:
    """Dead letters other than those that must be there, or that do not say why, how often and when."""
    found = []
    listed = {message_id(letter) for letter in letters}
    if listed != expected:
        found.append(f"dead letters missing {sorted(expected - listed)}, too many {sorted(listed - expected)}")
    for letter in letters:
        if letter.get("attempts") != MAX_ATTEMPTS:
            found.append(f"dead letter {letter['id']} had {letter.get('attempts')} attempts, not {MAX_ATTEMPTS}")
        if "the geocoder does not find" not in letter.get("reason", ""):
            found.append(f"dead letter {letter['id']} has the reason {letter.get('reason')!r}")
        # Not before its retries were over; that they come in time is looked at over all of them (see proof.waits).
        took, least = report.seconds_to_death(letter), sum(FIRST_BACKOFF_S * 2**n for n in range(MAX_ATTEMPTS - 1))
        if took < least * proof.EARLY:
            found.append(f"dead letter {letter['id']} was given up {took:.1f} s after its first delivery, before {least} s")
    return found
