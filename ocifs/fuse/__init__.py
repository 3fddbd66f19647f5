"""Answers the kernel. The only importer of pyfuse3."""
