"""Writes merged trees as EROFS images, which the kernel can mount."""
