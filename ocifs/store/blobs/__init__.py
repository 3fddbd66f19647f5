"""Cached blobs: verified, shared reads, block maps, fetches."""
