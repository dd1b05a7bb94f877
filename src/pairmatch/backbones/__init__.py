"""Frozen models that read photos and text, one module per model family."""
