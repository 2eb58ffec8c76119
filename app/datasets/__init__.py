"""Incoming data sets: received, unpacked, checked and stored."""
