import pytest

from app.settings import Settings


def test_lists_in_the_environment_are_names_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_MODELS", "demo, ViT-B-32/openai")
    assert Settings().models == ["demo", "ViT-B-32/openai"]


def test_a_queue_in_which_the_largest_request_starves_is_refused() -> None:
    with pytest.raises(ValueError, match="max_queue"):
        Settings(max_queue=100)


def test_an_empty_list_of_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_MODELS", " ,")
    with pytest.raises(ValueError, match="models"):
        Settings()
