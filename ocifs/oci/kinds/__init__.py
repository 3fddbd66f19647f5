"""Kinds of artifacts: their table, the classification of manifests, and the names of their files.

How to add a kind: docs/how-to/extend.md.
"""
