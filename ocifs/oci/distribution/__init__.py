"""The distribution specification: targets of requests, and the meaning of responses."""
