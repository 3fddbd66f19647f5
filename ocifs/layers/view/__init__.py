"""The entries of layers as a file system shows them: link targets, modes, names, attributes."""
