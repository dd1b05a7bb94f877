"""Photos, tables, files, checkpoints and the store.

Everything that is read from or written to disk.
"""
