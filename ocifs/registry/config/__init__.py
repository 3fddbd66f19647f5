"""Configuration files of registries, mirrors and short names."""
