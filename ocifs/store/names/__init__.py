"""Cached names and manifests, and what happens in an outage."""
