"""A process that stops for good at a chosen place, so that the run can kill it exactly there.

A crash at a random moment rarely meets the narrow gap that matters: behind the effect and before it is noted. A process told
so by its environment makes a file there and sleeps; the run sees the file and sends SIGKILL.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Stall:
    """Where to stop, if at all."""

    after: int | None
    file: Path | None

    @staticmethod
    def from_environment() -> Stall:
        """That of this process."""
        after, file = os.environ.get("PROPERTY_STALL_AFTER"), os.environ.get("PROPERTY_STALL_FILE")
        return Stall(int(after), Path(file)) if after and file else Stall(None, None)

    @staticmethod
    def to_environment(after: int, file: Path) -> dict[str, str]:
        """For a process to be started."""
        return {"PROPERTY_STALL_AFTER": str(after), "PROPERTY_STALL_FILE": str(file)}

    def here(self, done: int) -> None:
        """Called in the gap: stops if as much was done as was chosen."""
        if self.after is None or self.file is None or done < self.after:
            return
        self.file.touch()
        while True:
            time.sleep(60)
