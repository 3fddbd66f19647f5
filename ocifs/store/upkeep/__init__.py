"""Inventory, eviction, verification and pins of a cache."""
