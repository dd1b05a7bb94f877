"""Types, errors, interfaces and the registry of parts: what every other folder builds on."""
