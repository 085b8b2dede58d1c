"""A PostgreSQL of the application's own: a new cluster in a directory, reached through a socket there, gone with the run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from .children import Children, as_user, wait_for

INIT_WITHIN_S = 60
READY_WITHIN_S = 30
# Nothing outlives the run, so nothing need reach the disk. A commit survives a SIGKILL all the same.
SETTINGS = ("listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=40", "shared_buffers=64MB")


def start(children: Children, folder: Path) -> str:
    """Makes and starts it; returns how to connect."""
    folder.mkdir()
    owner = _owner()
    if owner:
        os.chown(folder, *owner)
    folder.chmod(0o700)
    data = folder / "data"
    init = [str(_program("initdb")), "-D", str(data), "-U", "property", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    made = subprocess.run(
        ["setpriv", *as_user(owner), *init, "--no-sync", "--no-instructions"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INIT_WITHIN_S,
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb: {made.stderr.strip() or made.stdout.strip()}")
    settings = [part for setting in (*SETTINGS, f"unix_socket_directories={folder}") for part in ("-c", setting)]
    server = children.start(
        "postgres",
        [str(_program("postgres")), "-D", str(data), *settings],
        {"LC_ALL": "C"},
        end=signal.SIGINT,
        grace_s=20,
        user=owner,
    )
    database = f"host={folder} user=property dbname=postgres"
    wait_for("PostgreSQL", lambda: _answers(database), READY_WITHIN_S, server)
    return database


def _answers(database: str) -> bool:
    try:
        psycopg.connect(database, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _owner() -> tuple[int, int] | None:
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
            return user.pw_uid, user.pw_gid
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL cannot run as root, and there is no user postgres or nobody")


def _program(name: str) -> Path:
    """The newest of Debian's, or that on the PATH."""
    installed = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = sorted(installed, key=lambda path: int(path.parts[4]) if path.parts[4].isdigit() else 0)
    if newest:
        return newest[-1]
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing: install PostgreSQL")
    return Path(found)
