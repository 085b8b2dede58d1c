"""Tests of the parts that need no Sluice, on a PostgreSQL of their own."""
