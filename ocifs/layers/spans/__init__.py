"""Parts of a layer that are decompressed and verified by themselves."""
