"""What a run says at its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

from . import proof

LETTERS_SHOWN = 3


def letters(found: list[dict[str, Any]]) -> str:
    """Some dead letters as the API lists them."""
    lines = []
    for letter in found[:LETTERS_SHOWN]:
        event = letter["record"]["valueJson"]
        lines.append(
            f"  {letter['id']:>5}  {event['aggregate']['id']} version {int(event['aggregate']['version'])} {event['type']}: "
            f"{letter.get('reason')}; {letter.get('attempts')} attempts, first {time_of(letter['firstDeliveryTime']):%H:%M:%S}, "
            f"given up {time_of(letter['deadLetterTime']):%H:%M:%S}"
        )
    more = len(found) - LETTERS_SHOWN
    return "dead letters, as the API lists them:\n" + "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))


def seconds_to_death(letter: dict[str, Any]) -> float:
    """From the first delivery to the giving up."""
    return (time_of(letter["deadLetterTime"]) - time_of(letter["firstDeliveryTime"])).total_seconds()


def time_of(text: str) -> datetime:
    """An RFC 3339 time of the API."""
    return datetime.fromisoformat(text)


def table(
    counts: dict[str, int], in_topic: int, dead: int, redriven: int, killed: dict[str, int], db: psycopg.Connection
) -> str:
    """The figures, a row each."""
    twice = in_topic - counts["events"] - redriven
    rows = [
        ("events written with their properties", counts["events"], f"of {counts['properties']} properties"),
        ("records in the topic", in_topic, f"{twice} sent twice by a relay that was killed, {redriven} redriven"),
        ("killed with -9", sum(killed.values()), ", ".join(f"{name} {times}" for name, times in killed.items())),
        ("deliveries", counts["deliveries"], ""),
        ("repeats dropped by the inbox", counts["repeats"], "sent twice, or not acknowledged by a consumer that was killed"),
        ("failed on purpose", counts["failed"], "address unknown to the geocoder"),
    ]
    for wait in proof.waits(db):
        measured = f"measured {wait.shortest:.2f} .. {wait.longest:.2f} s, median {wait.median:.2f} s"
        rows.append((f"  delivered again after {wait.asked:.0f} s", wait.count, measured))
    rows += [
        ("dead-lettered", dead, "after 4 attempts"),
        ("waited in the inbox for a dead letter", counts["waited"], "later events of the same properties"),
        ("redriven", redriven, "after the geocoder's map was corrected"),
        ("applied exactly once", counts["applied"], f"{counts['told']} notes to interested users"),
    ]
    wide = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{wide}}  {count:>7}  {note}".rstrip() for name, count, note in rows]
    waited = proof.key_wait(db)
    if waited:
        lines.append(
            f"  order of a key: {waited.property_id} version {waited.failed_version} failed {waited.failures} times in "
            f"{waited.retried_s:.1f} s; version {waited.next_version} ({waited.next_type}), published meanwhile, came "
            f"{waited.next_after_s:.1f} s after its first delivery"
        )
    return "\n".join(lines)
