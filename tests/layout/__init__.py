"""Tests of OCI image layouts as sources."""
