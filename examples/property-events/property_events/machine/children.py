"""Processes that a run starts, and ends: only these, by their ids, however the run itself ends.

Each is the leader of a group of its own, so Ctrl-C reaches the run alone, which stops them in good order; and if the run is
killed, the kernel signals them (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable

LOG_LINES_SHOWN = 15


class Child:
    """A started process."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: dict[str, str],
        log: Path,
        end: signal.Signals,
        user: tuple[int, int] | None,
    ) -> None:
        self.name = name
        self.log = log
        self._end = end
        # setpriv replaces itself by the command, so the id is the command's.
        wrapped = ["setpriv", *as_user(user), "--pdeathsig", end.name.removeprefix("SIG"), *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **env},
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def kill9(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()
        self._process.wait()

    def stop(self, grace_s: float) -> int:
        """Asks it to end, and kills it when the grace is over. Its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(self._end)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill9()
        return self._process.returncode

    def tail(self) -> str:
        """The last lines it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])


class Children:
    """All processes of a run."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._all: list[tuple[Child, float]] = []

    def start(
        self,
        name: str,
        command: list[str],
        env: dict[str, str] | None = None,
        end: signal.Signals = signal.SIGTERM,
        grace_s: float = 10,
        user: tuple[int, int] | None = None,
    ) -> Child:
        """Starts a process; `end` is the signal that ends it in good order, and `grace_s` how long that may take."""
        child = Child(name, command, env or {}, self._logs / f"{name}.log", end, user)
        self._all.append((child, grace_s))
        return child

    def stop_all(self) -> None:
        """Ends all that still run, the last started first."""
        while self._all:
            child, grace_s = self._all.pop()
            child.stop(grace_s)


def as_user(user: tuple[int, int] | None) -> list[str]:
    """Options of setpriv that run a program as the user (uid, gid)."""
    return [] if user is None else [f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]


def wait_for(what: str, condition: Callable[[], bool], within_s: float, child: Child) -> None:
    """Waits until the condition holds, as long as the process that brings it about lives."""
    until = time.monotonic() + within_s
    while not condition():
        if child.exit_code() is not None:
            raise RuntimeError(f"{child.name} ended with {child.exit_code()}; its last lines:\n{child.tail()}")
        if time.monotonic() > until:
            raise TimeoutError(f"{what} took over {within_s:.0f} s; the last lines of {child.name}:\n{child.tail()}")
        time.sleep(0.05)
