"""A Sluice of the run's own: `sluiced up` with its data in a directory and ports that were free."""

from __future__ import annotations

import socket
from pathlib import Path

from .children import Child, Children, wait_for

READY_WITHIN_S = 180
GRACE_S = 45
STARTS = 3


def start(children: Children, sluiced: Path, folder: Path) -> tuple[str, str]:
    """Starts it; returns its address and the key of its demo tenant."""
    if not sluiced.exists():
        raise RuntimeError(f"{sluiced} is missing: build it with `cargo build -p sluiced`, or set SLUICE_URL")
    for attempt in range(1, STARTS + 1):
        port, operator_port = _free_ports()
        child = children.start(
            f"sluiced-{attempt}",
            [
                *(str(sluiced), "up", "--data-dir", str(folder)),
                *("--port", str(port), "--operator-port", str(operator_port)),
            ],
            grace_s=GRACE_S,
        )
        try:
            wait_for("sluiced up", lambda: _says_ready(child), READY_WITHIN_S, child)
        except RuntimeError:
            # Somebody took a port between our look and its use.
            if attempt == STARTS or "is taken" not in child.log.read_text(errors="replace"):
                raise
            continue
        values = _variables(folder / "env")
        return values["SLUICE_URL"], values["SLUICE_API_KEY"]
    raise AssertionError("the last start returns or raises")


def _says_ready(child: Child) -> bool:
    return "Ctrl-C stops everything" in child.log.read_text(errors="replace")


def _variables(file: Path) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in file.read_text().splitlines())
    return {name: value for name, _, value in lines}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
