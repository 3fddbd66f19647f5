"""Cached names and manifests, and back-off during an outage."""
