"""A registry and its mirrors, behind the Protocols of one registry."""
