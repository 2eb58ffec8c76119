"""Imported by Python at the start of every process that has this folder on its path."""

from bench.faults.crash_points import install

install()
