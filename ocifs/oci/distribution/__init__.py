"""The distribution specification: requests, and the meaning of responses."""
