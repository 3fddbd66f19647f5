"""The state of a whole cache: inventory, eviction, verification and pins."""
