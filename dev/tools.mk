# Versions of the checkers that are built from source. Unoptimized builds of them are made in a third of the time;
# nextest without its self-update, which would bring in TLS and HTTP.
CARGO_DENY_VERSION := 0.20.2
NEXTEST_VERSION := 0.9.151
