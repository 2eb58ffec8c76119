from collections.abc import Iterator

import pytest

from sds_clip.demo import training_set


@pytest.fixture
def fresh_captions() -> Iterator[None]:
    """What a model makes of a changed list of captions is not kept for other tests."""
    training_set._all_captions.cache_clear()
    yield
    training_set._all_captions.cache_clear()
