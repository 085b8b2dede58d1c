"""`python -m property_events`: the whole run; with a name, one process of the application."""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Callable

import psycopg

from . import consumer, relay, resources, workload
from .api import ApiError
from .machine import local_sluice, postgres
from .machine.children import Children
from .scenario import Scenario
from .settings import Settings, key_from_environment
from .stopping import Stopping
from .workload import Plan

REPOSITORY = Path(__file__).resolve().parents[3]
SHORT = {"properties": 240, "events": 2_400, "per_second": 160, "lost": 6, "shaky": 6, "kills": 1}
LONG = {"properties": 2_000, "events": 40_000, "per_second": 200, "lost": 40, "shaky": 40, "kills": 5}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="property_events",
        description="An application on Sluice with outbox, inbox, retries and dead letters, and the proof that each event was "
        "applied exactly once. It uses the Sluice at SLUICE_URL with SLUICE_API_KEY or SLUICE_API_KEY_FILE; without "
        "SLUICE_URL it starts one.",
    )
    parser.set_defaults(role="run")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same events and kills [1]")
    parser.add_argument("--long", action="store_true", help="more of everything")
    for name in ("properties", "events", "per_second"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"[{SHORT[name]}; {LONG[name]} with --long]")
    parser.add_argument("--namespace", help="a namespace to make and remove [a new name]")
    parser.add_argument("--sluiced", type=Path, default=REPOSITORY / "target/debug/sluiced", help="the server to start")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, and the namespace")
    roles = parser.add_subparsers(title="processes of the application, started by the run")
    service = roles.add_parser("service", help="the property service and its users")
    service.set_defaults(role="service")
    for name in ("seed", "properties", "events", "per-second", "lost", "shaky"):
        service.add_argument(f"--{name}", type=int, required=True)
    roles.add_parser("relay", help="publishes the outbox").set_defaults(role="relay")
    one = roles.add_parser("consumer", help="feeds the search")
    one.set_defaults(role="consumer")
    one.add_argument("--name", required=True)
    return parser.parse_args()


def main() -> int:
    """Runs one role."""
    args = arguments()
    if args.role == "run":
        return run(args)
    settings, stopping = Settings.from_environment(), Stopping()
    if args.role == "service":
        plan = Plan(args.seed, args.properties, args.events, args.per_second, args.lost, args.shaky)
        workload.Market(plan, settings).run(stopping)
    elif args.role == "relay":
        relay.run(settings, stopping)
    else:
        consumer.run(settings, args.name, stopping)
    return 0


def run(args: argparse.Namespace) -> int:
    """Everything, and its end, whatever happens."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:>6.1f} s  {what}", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    # PostgreSQL, which does not run as root, must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="property-events-"))
    folder.chmod(0o755)
    children = Children(folder)
    code = 1
    try:
        code = 0 if in_folder(args, folder, children, say) else 1
    except KeyboardInterrupt:
        code = 130
    except (ApiError, psycopg.Error, http.client.HTTPException, RuntimeError, OSError) as error:
        say(f"FAILED: {error}")
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        children.stop_all()
        if args.keep or code == 1:
            say(f"logs and data are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    say({0: "ok", 130: "interrupted"}.get(code, "not ok"))
    return code


def in_folder(args: argparse.Namespace, folder: Path, children: Children, say: Callable[[str], None]) -> bool:
    """The run proper: whether everything is as it must be."""
    size = LONG if args.long else SHORT
    wanted = {name: getattr(args, name) or size[name] for name in ("properties", "events", "per_second")}
    plan = Plan(args.seed, lost=size["lost"], shaky=size["shaky"], **wanted)
    database = postgres.start(children, folder / "postgres")
    url, key = os.environ.get("SLUICE_URL", "").strip(), key_from_environment()
    if url:
        if key is None:
            raise RuntimeError("SLUICE_URL is set, and neither SLUICE_API_KEY nor SLUICE_API_KEY_FILE is")
        say(f"using the Sluice at {url}")
    else:
        say("starting a Sluice: Kafka, PostgreSQL, all services")
        url, key = local_sluice.start(children, args.sluiced.resolve(), folder / "sluice")
        say(f"Sluice is ready at {url}")
    settings = Settings(url, key, args.namespace or f"property-events-{secrets.token_hex(3)}", database)
    try:
        outcome = Scenario(children, settings, plan, size["kills"], folder, say).run()
    finally:
        if not args.keep and os.environ.get("SLUICE_URL"):
            # In a Sluice that stays.
            resources.remove(settings.sluice())
    print(f"\n{outcome.table}\n", flush=True)
    for difference in outcome.differences:
        print(f"  DIFFERS: {difference}", flush=True)
    return not outcome.differences


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM end the run the same way."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
