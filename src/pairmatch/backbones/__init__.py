"""Frozen models that read photos and text. Each is imported only when it is asked for."""
