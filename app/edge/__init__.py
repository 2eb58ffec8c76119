"""The HTTP edge: what a request passes before its route and after it."""
