"""Local images, behind the same protocols as a registry: layouts, archives, directories.

No network access. Files and their names are untrusted.
"""
