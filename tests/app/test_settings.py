import pytest

from sds_clip.app.settings import Settings


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


@pytest.mark.parametrize(
    ("given", "address"), [("127.0.0.1:9102", ("127.0.0.1", 9102)), ("[::1]:9102", ("::1", 9102))]
)
def test_an_address_is_a_host_and_a_port(
    given: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDS_CLIP_METRICS_ADDRESS", given)
    assert Settings().metrics_address == address


@pytest.mark.parametrize("given", ["9102", ":9102", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:0", "a:b"])
def test_what_is_no_address_is_refused_with_an_example(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_METRICS_ADDRESS", given)
    with pytest.raises(ValueError, match=r"HOST:PORT, such as 127\.0\.0\.1:9102"):
        Settings()
