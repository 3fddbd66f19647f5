"""Root filesystems that the kernel serves as EROFS: probe, mount, overlay, records."""
