"""The names that a user sees. Knows no inode, no FUSE and no HTTP."""
