"""The application's processes in a run: service, relay, two consumers; and which of them are killed with -9, where.

A process to be killed stops itself in the gap that matters (see faults) and is killed there. Which batch that is, the seed decides.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Callable

from .faults import Stall
from .machine.children import Child, Children
from .settings import Settings
from .workload import Plan

CONSUMERS = ("consumer-1", "consumer-2")
# Down time of what was killed.
RESTART_AFTER_S = {"relay": 1.0, "consumer-1": 3.0}
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent


class Crew:
    """Starts them, kills some, starts those again, and notices when one ends that should not."""

    def __init__(
        self, children: Children, settings: Settings, plan: Plan, kills: int, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._children = children
        self._settings = settings
        self._plan = plan
        self._folder = folder
        self._say = say
        self._random = Random(plan.seed + 1)
        self._kills_left = {"relay": kills, "consumer-1": kills}
        self._each = plan.events // (kills + 1)
        self._running: dict[str, Child] = {}
        self._due: dict[str, float] = {}
        self.killed = {"relay": 0, "consumer-1": 0}

    def start(self) -> None:
        """Starts all."""
        for name in (*CONSUMERS, "relay"):
            self._start(name)
        options = [part for name, value in asdict(self._plan).items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self._running["service"] = self._run("service", ["service", *options], {})

    @property
    def service_done(self) -> bool:
        """The market has closed."""
        return "service" not in self._running

    @property
    def all_kills_done(self) -> bool:
        """Nothing is to be killed or to be started any more."""
        return not any(self._kills_left.values()) and not self._due

    def tick(self) -> None:
        """Called often."""
        for name in list(self._kills_left):
            child, file = self._running.get(name), self._stall_file(name)
            if child is not None and file.exists():
                child.kill9()
                file.unlink()
                del self._running[name]
                self.killed[name] += 1
                self._kills_left[name] -= 1
                self._due[name] = time.monotonic() + RESTART_AFTER_S[name]
                gap = "between publishing and marking" if name == "relay" else "between effect and acknowledgement"
                self._say(f"killed {name} (process {child.pid}) with -9 {gap}")
        for name, due in list(self._due.items()):
            if time.monotonic() >= due:
                del self._due[name]
                self._start(name)
                self._say(f"started {name} again")
        for name, child in list(self._running.items()):
            code = child.exit_code()
            if name == "service" and code == 0:
                del self._running[name]
            elif code is not None:
                raise RuntimeError(f"{name} ended with {code}; its last lines:\n{child.tail()}")

    def stop(self) -> list[str]:
        """Asks all to end; what did not end well."""
        return [
            f"{name} ended with {code}: {child.tail()}"
            for name, child in self._running.items()
            if (code := child.stop(10)) != 0
        ]

    def _start(self, name: str) -> None:
        env: dict[str, str] = {}
        if self._kills_left.get(name):
            share = self._random.uniform(0.5, 0.9) if name == "relay" else self._random.uniform(0.15, 0.3)
            env = Stall.to_environment(int(self._each * share), self._stall_file(name))
        command = ["relay"] if name == "relay" else ["consumer", "--name", name]
        self._running[name] = self._run(name, command, env)

    def _run(self, name: str, command: list[str], env: dict[str, str]) -> Child:
        env = {**self._settings.to_environment(), "PYTHONPATH": str(PACKAGE_FOLDER), **env}
        return self._children.start(name, [sys.executable, "-m", "property_events", *command], env)

    def _stall_file(self, name: str) -> Path:
        return self._folder / f"{name}.stalled"
