"""Applies layers on top of each other (image-spec, layer.md, "Applying Changesets")."""
