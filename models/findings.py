"""Findings about faulty data. All are counted; the first ones are listed with a message."""

from dataclasses import dataclass, field

LISTED = 20
"""How many findings are listed."""


@dataclass(frozen=True)
class Finding:
    """Why a data set, one item of it, or an image cannot be used."""

    code: str
    message: str


@dataclass
class Findings:
    """Findings in the order in which they are made: all are counted, and the first `LISTED` are kept."""

    count: int = 0
    listed: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str) -> None:
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(Finding(code, message))

    def extend(self, others: "Findings") -> None:
        """Append the findings of `others`, as if they were added after these."""
        self.count += others.count
        self.listed += others.listed[: LISTED - len(self.listed)]
