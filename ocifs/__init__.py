"""ocifs: a container registry as a filesystem."""

__version__ = "0.1.0"
