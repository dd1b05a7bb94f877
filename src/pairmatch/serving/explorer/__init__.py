"""The explorer: pages for a browser that show what a matcher does. Nothing on them changes data."""
