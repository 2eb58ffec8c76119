"""One half of the client; the blocking one is generated from the awaited one by `make client`."""
