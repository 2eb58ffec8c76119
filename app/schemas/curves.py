"""GET /jobs/{id}/curves."""

from typing import Literal

from pydantic import BaseModel, Field

MIN_POINTS, MAX_POINTS = 16, 10_000


class CurvePoint(BaseModel):
    """A point of a curve. A value that was not finite is null."""

    step: int
    value: float | None


class Curve(BaseModel):
    """One metric by step, in the order of the steps."""

    steps: list[int]
    values: list[float | None] = Field(description="The value at each step. One that was not finite is null.")
    count: int = Field(description="The number of points from which these were chosen.")
    last: CurvePoint = Field(description="The last point.")


class Curves(BaseModel):
    """A job's metrics as columns."""

    object: Literal["curves"] = "curves"
    job: str = Field(description="The id of the job.")
    curves: dict[str, Curve] = Field(description="The curves by the names of the metrics.")
