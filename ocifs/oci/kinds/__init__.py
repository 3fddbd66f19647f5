"""Kinds of artifacts, and the files that each carries."""
