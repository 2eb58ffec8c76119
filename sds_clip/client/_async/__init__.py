"""One half of the client. `make client` generates the blocking half from the asynchronous one."""
