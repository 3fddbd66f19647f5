"""The tree of names that users see. Independent of FUSE, inodes and HTTP."""
