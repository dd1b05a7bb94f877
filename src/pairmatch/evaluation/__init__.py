"""Ranks, metrics, intervals, tests and cross-validation."""
