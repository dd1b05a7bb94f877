"""Version of pairmatch."""

__version__ = "0.1.0"
