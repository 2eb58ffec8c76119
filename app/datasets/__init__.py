"""Incoming data sets: received, unpacked, checked and stored. Nothing here uses HTTP or SQL."""
