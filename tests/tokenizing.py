"""A tokenizer for tests that watch or replace the service's own."""

from collections.abc import Callable

from torch import Tensor

from sds_clip.models.clip.tokenizers import Tokenizer


class Tokenizing(Tokenizer):
    """Turns texts into tokens by a function."""

    def __init__(self, tokenize: Callable[[list[str]], Tensor]) -> None:
        self._tokenize = tokenize

    def __call__(self, texts: list[str]) -> Tensor:
        return self._tokenize(texts)
