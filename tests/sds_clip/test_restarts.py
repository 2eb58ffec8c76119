"""When what has died is started again, by a clock of the test's own."""

import pytest

from sds_clip.app.errors import ConfigurationError
from sds_clip.supervisor import LONGEST_S, SETTLED_S, Restarts


class Part:
    def __init__(self) -> None:
        self.running = True
        self.broken = False
        self.starts = 0

    def start(self) -> None:
        if self.broken:
            raise ConfigurationError("it is broken")
        self.starts += 1
        self.running = True

    def is_running(self) -> bool:
        return self.running


@pytest.fixture
def part() -> Part:
    return Part()


def started_after(restarts: Restarts, part: Part, now: float) -> float:
    """Seconds from a death at `now` until it is started, looked at twice a second."""
    part.running, starts, at = False, part.starts, now
    while part.starts == starts:
        restarts.look(at)
        at += 0.5
    return at - 0.5 - now


def test_what_lives_is_left_alone(part: Part) -> None:
    restarts = Restarts("part", part, 0)
    for now in range(200):
        restarts.look(now)
    assert part.starts == 0


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_settled_life(part: Part) -> None:
    restarts, now, pauses = Restarts("part", part, 0), 0.0, []
    for _ in range(7):
        pauses.append(started_after(restarts, part, now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, LONGEST_S, LONGEST_S]
    assert started_after(restarts, part, now + SETTLED_S) == 1


def test_one_that_cannot_be_started_is_tried_again(part: Part) -> None:
    restarts = Restarts("part", part, 0)
    part.running, part.broken = False, True
    for now in range(10):
        restarts.look(now)
    part.broken = False
    for now in range(10, 30):
        restarts.look(now)
    assert part.starts == 1
