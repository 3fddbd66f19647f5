"""What the specifications say: pure, synchronous, without any input or output.

Rules that hold here: no module imports trio, httpx, os or anything that touches the world; every
value is immutable; every refusal is an error from `ocifs.errors`; what comes from outside is parsed
once, at this edge, into values that cannot be malformed.
"""
