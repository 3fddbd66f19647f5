"""Reads tar streams: headers, PAX records, entries."""
