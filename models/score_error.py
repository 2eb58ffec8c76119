"""Whose error a diffusion score is: the noise's or the velocity's. Imports nothing heavy."""

from typing import Literal

ErrorOf = Literal["epsilon", "velocity"]
SCORE_ERROR: ErrorOf = "velocity"
"""The default, in training and in evaluation."""
