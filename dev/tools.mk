# Versions of the checkers that are built from source.
CARGO_DENY_VERSION := 0.20.2
