"""Input and output: photos, tables, files, SQLite, checkpoints and the store."""
