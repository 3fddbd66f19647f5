"""Options: declared once, for the command line, the environment, the configuration file, the Python
API and the documents (docs/decisions/0215-declaration-of-options.md).

- `declaration`: how an option is declared.
- `declared`: the options of sources and of the cache. `mount_declared`: those of mounts.
- `settings`: from the values of options to settings.
"""

from ocifs.options.declared import CacheOptions, Options
from ocifs.options.mount_declared import MountOptions
from ocifs.options.settings import cache_settings, mount_flags, path_of, settings_of

__all__ = [
    "CacheOptions",
    "MountOptions",
    "Options",
    "cache_settings",
    "mount_flags",
    "path_of",
    "settings_of",
]
