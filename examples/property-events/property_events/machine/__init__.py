"""What the run needs on this machine: processes, a PostgreSQL, and a Sluice if none is given."""
