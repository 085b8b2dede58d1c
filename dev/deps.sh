#!/usr/bin/env bash
# Finds what a Debian machine lacks to build and run Sluice; with the word `tests`, also what its tests need. As root it installs that; else it prints the exact command.
set -euo pipefail

missing=()
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null 2>&1; }
has_java() {
    command -v java >/dev/null 2>&1 || return 1
    local major
    major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1)
    [ "${major:-0}" -ge 17 ]
}

need cc build-essential
need make make
need pkg-config pkg-config
need cmake cmake
need mvn maven
need python3 python3
need setpriv util-linux
need curl curl
# Clients of these languages are part of the tests.
if [ "${1:-}" = tests ]; then
    need go golang-go
    need node nodejs
    need javac default-jdk-headless
fi
has_postgres || missing+=(postgresql)
has_java || missing+=(default-jre-headless)
[ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
[ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
python3 -c 'import ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)

rust=0
if ! command -v cargo >/dev/null 2>&1; then
    rust=69
    echo "missing: a Rust toolchain; install it with" >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal && . ~/.cargo/env" >&2
fi
[ ${#missing[@]} -eq 0 ] && exit "$rust"

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -qq && "${install[@]}" >/dev/null; }; then
        echo "could not install them; try: apt-get update && ${install[*]}" >&2
        exit 69
    fi
else
    echo "missing: ${missing[*]}; install with: sudo apt-get update && sudo ${install[*]}" >&2
    exit 69
fi
exit "$rust"
