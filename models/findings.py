"""What is wrong with data: all of it is counted, the first of it is listed in words."""

from dataclasses import dataclass, field

LISTED = 20
"""How many findings are listed; all are counted."""


@dataclass(frozen=True)
class Finding:
    """Why data, or an item of them, cannot be used."""

    code: str
    message: str


@dataclass
class Findings:
    """Findings in the order in which they are made."""

    count: int = 0
    listed: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str) -> None:
        """Count one more, and list it if it is among the first."""
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(Finding(code, message))

    def extend(self, others: "Findings") -> None:
        """Take in others, after these."""
        self.count += others.count
        self.listed += others.listed[: LISTED - len(self.listed)]
