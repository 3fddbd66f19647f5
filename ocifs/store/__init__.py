"""Keeps bytes by digest and names with a time to live.

The only writer to disk; the only importer of cachetools.
"""
