"""Mutated inputs and killed processes: `python -m tests.fuzz inputs` and `… kills`."""
