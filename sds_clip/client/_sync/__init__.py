# Generated from _async by `make client`. Edit that instead.
"""One half of the client; the blocking one is generated from the awaited one by `make client`."""
