"""Lazy layer formats: tables of contents, which replace the pass over a whole layer."""
