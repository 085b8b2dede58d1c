"""What a process of the application is told through its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import psycopg

from .api import Sluice

TOPIC = "property-events"
DEAD_LETTERS = "property-events-dlq"
GROUP = "property-search"

MAX_ATTEMPTS = 4
FIRST_BACKOFF_S = 2
ACK_DEADLINE_S = 10


@dataclass(frozen=True)
class Settings:
    """Where Sluice and PostgreSQL are."""

    sluice_url: str
    sluice_key: str
    namespace: str
    database: str

    @staticmethod
    def from_environment() -> Settings:
        """Those of this process."""
        return Settings(
            sluice_url=os.environ["SLUICE_URL"],
            sluice_key=os.environ["SLUICE_API_KEY"],
            namespace=os.environ["PROPERTY_NAMESPACE"],
            database=os.environ["PROPERTY_DATABASE"],
        )

    def to_environment(self) -> dict[str, str]:
        """The same for a process to be started."""
        return {
            "SLUICE_URL": self.sluice_url,
            "SLUICE_API_KEY": self.sluice_key,
            "PROPERTY_NAMESPACE": self.namespace,
            "PROPERTY_DATABASE": self.database,
        }

    def sluice(self, stop: Callable[[], bool] = lambda: False) -> Sluice:
        """A client; it stops repeating calls once `stop` says so."""
        return Sluice(self.sluice_url, self.sluice_key, self.namespace, stop=stop)

    def connect(self) -> psycopg.Connection:
        """A session in autocommit: transactions are opened where they are meant."""
        return psycopg.connect(self.database, autocommit=True, connect_timeout=5)


def key_from_environment() -> str | None:
    """The key in SLUICE_API_KEY, or in the file that SLUICE_API_KEY_FILE names."""
    key = os.environ.get("SLUICE_API_KEY", "").strip()
    file = os.environ.get("SLUICE_API_KEY_FILE", "").strip()
    return key or (Path(file).read_text().strip() if file else "") or None
