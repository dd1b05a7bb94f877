"""Projection heads, losses and learners: who goes with whom, learned from features."""
