"""Images on this machine, behind the same Protocols as a registry: layouts, archives, directories.

No network.
"""
