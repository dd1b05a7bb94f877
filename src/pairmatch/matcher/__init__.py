"""The facade, and saved matchers on disk and on the hub."""
