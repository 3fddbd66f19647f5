"""Asks a registry. The only importer of httpx; credentials, mirrors and transport live here."""
