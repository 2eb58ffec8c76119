"""How often proposals hold the true caption."""

import pytest

from sds_clip.demo.proposals import shares
from sds_clip.demo.training_set import DemoPairs, true_captions


@pytest.mark.usefixtures("fresh_captions")
@pytest.mark.parametrize("listed", [True, False])
def test_a_true_caption_is_found_only_if_it_is_in_the_list(
    monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    scenes = DemoPairs(24).scenes
    true = sorted(text for scene in scenes for text in true_captions(scene))
    others = [f"{text} and a mug" for text in true]
    monkeypatch.setattr(
        "sds_clip.demo.training_set.training_captions", lambda: [*(true if listed else []), *others]
    )

    count, among, first = shares(DemoPairs(24, captions="proposed"))

    assert count == sum(scene.relation is not None for scene in scenes) > 5
    if listed:
        assert 0.5 < among <= 1
        assert first <= among
    else:
        assert among == first == 0
