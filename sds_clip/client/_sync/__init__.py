# Generated from _async by `make client`. Edit that instead.
"""One half of the client. `make client` generates the blocking half from the asynchronous one."""
