"""The reference model: from what was pushed to the tree that must be seen."""
