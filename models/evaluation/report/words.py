"""Format numbers for the page."""

NO_BREAK = "\u00a0"
_MINUS = "\u2212"


def percent(share: float) -> str:
    return f"{100 * share:.1f}{NO_BREAK}%"


def points(difference: float) -> str:
    text = f"{100 * difference:+.1f}".replace("-", _MINUS)
    return "0.0" if text[1:] == "0.0" else text


def interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points_interval(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """Format as `p = 0.023`, or `p < 0.0001` for anything smaller."""
    text = "< 0.0001" if p < 0.0001 else f"= {p:.2f}" if p >= 0.1 else f"= {p:.2g}"
    return f"p {text}".replace(" ", NO_BREAK)


def margin(value: float) -> str:
    """Format with three digits and a sign. The minus sign is as wide as a plus."""
    return f"{value:+.3g}".replace("-", _MINUS) if value else "0"


def score(value: float) -> str:
    return f"{value:.4f}".replace("-", _MINUS)


def items(count: int) -> str:
    """`1 item`, `400 items`."""
    return f"{count}{NO_BREAK}{'item' if count == 1 else 'items'}"


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


FILTERS = (percent, points, interval, points_interval, p_value, margin, score, items, shortened)
"""Available to the template under these names."""
