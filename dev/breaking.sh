#!/usr/bin/env bash
# Compares the protos with the last released ones: the newest tag v*, or, before the first release, the commit that
# introduced them. A shallow clone without either has nothing to compare with and says so.
set -euo pipefail
buf=$1
base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git log --diff-filter=A --format=%H -- buf.yaml | tail -1)
if [ -z "$base" ] || ! git cat-file -e "$base:buf.yaml" 2>/dev/null; then
    echo "breaking: no earlier version of the protos in this clone" >&2
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git archive "$base" buf.yaml proto third_party | tar -x -C "$folder"
"$buf" breaking --against "$folder"
