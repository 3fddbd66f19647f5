"""Reads an OCI image layout on disk, a directory or a tar of one: the same Protocols as a registry, no network."""
