"""Sweeps, the tables of the paper, and the demo."""
