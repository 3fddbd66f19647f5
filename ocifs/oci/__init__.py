"""The OCI and Docker specifications as pure functions and values.

Called from the event loop and from worker threads alike; nothing here blocks or does I/O.

Rules that hold here:

- No module imports trio, httpx, os or anything else that does input or output.
- Values are immutable.
- Errors are those of `ocifs.errors`.
- External data is parsed once, here, into values that cannot be malformed.
"""
