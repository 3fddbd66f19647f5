"""The entries of a layer, packed in memory and encoded for the cache."""
