"""The cache on disk: blobs by digest, names with a time to live, and data derived from blobs.

The only writer to the cache's directory.
"""
