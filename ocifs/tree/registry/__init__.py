"""Directories of hosts, namespaces and repositories."""
