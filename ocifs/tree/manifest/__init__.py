"""The directory of a manifest: its files, layers, children and referrers."""
