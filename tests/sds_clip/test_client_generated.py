"""The blocking half of the client."""

from tools.generate_client import generate, out_of_date


def test_blocking_half_is_what_make_client_writes() -> None:
    assert out_of_date(generate()) == []
