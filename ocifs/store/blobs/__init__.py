"""Cached blobs: blocks on disk, fetches of missing blocks, and reads that share them."""
