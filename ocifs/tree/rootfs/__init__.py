"""Root filesystems: the nodes of merged layers."""
