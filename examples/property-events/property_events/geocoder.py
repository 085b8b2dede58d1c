"""The geocoder: somebody else's service, which does not find some addresses. The faults of a run are kept in its table."""

from __future__ import annotations

import hashlib

import psycopg


class AddressUnknown(Exception):
    """The geocoder has no place for an address."""


class Geocoder:
    """Finds addresses. Its session is its own: what it counts stays, whatever becomes of its caller's transaction."""

    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db

    def locate(self, address: str) -> tuple[float, float]:
        """Latitude and longitude."""
        row = self._db.execute(
            "UPDATE geocoder.unknown SET failures_left = failures_left - 1"
            " WHERE address = %s AND (failures_left IS NULL OR failures_left > 0) RETURNING 1",
            (address,),
        ).fetchone()
        if row is not None:
            raise AddressUnknown(f"the geocoder does not find {address!r}")
        digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
        north, west = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
        return round(40 + north / 2**32, 6), round(-74 + west / 2**32, 6)


def lose(db: psycopg.Connection, address: str, failures: int | None) -> None:
    """Makes an address unknown, so many times or until the map is corrected."""
    db.execute("INSERT INTO geocoder.unknown VALUES (%s, %s)", (address, failures))


def correct_the_map(db: psycopg.Connection) -> int:
    """Fixes the cause: every address is found from now on. How many were not."""
    return db.execute("DELETE FROM geocoder.unknown WHERE failures_left IS NULL").rowcount
