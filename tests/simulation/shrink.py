"""From a schedule that fails to a short one: choices are left out as long as it still fails."""

from collections.abc import Callable, Mapping

Made = Mapping[int, int]


def shrink(made: Made, fails: Callable[[Made], bool]) -> Made:
    """Leave out ever smaller parts of the choices, so that the harmless ones take their places.

    In the result no single choice can be left out.
    """
    kept = sorted(made.items())
    size = len(kept)
    while size > 0:
        start, before = 0, len(kept)
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if fails(dict(fewer)):
                kept = fewer
            else:
                start += size
        if size > 1 or len(kept) == before:
            size //= 2
    return dict(kept)
