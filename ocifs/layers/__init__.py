"""Turns layers into files. Sees the world through the Protocols of ocifs.content only."""
