"""Which error a diffusion score is: that of the noise or of the velocity. Imports nothing heavy."""

from typing import Literal

ErrorOf = Literal["epsilon", "velocity"]
SCORE_ERROR: ErrorOf = "velocity"
"""The default, in training and in evaluation alike (decision 25)."""
