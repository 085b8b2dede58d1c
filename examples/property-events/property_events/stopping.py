"""SIGTERM and SIGINT as a wish to stop: the loop in hand ends, what was begun is finished."""

from __future__ import annotations

import signal
from types import FrameType


class Stopping:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked
