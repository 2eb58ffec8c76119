"""Measures recall@10 of the types of POST /v2/embed: how many of the ten nearest images by float each type finds again.

All images and captions of the demo's two sets are searched for among the images: each image among the others, and each
caption among all.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Float32

from bench.options import option, parse
from bench.report import heading
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.quantize import range_of, to_binary, to_int8, to_ubinary, to_uint8
from sds_clip.models.markdown import markdown_table

DEMO = Path(__file__).parents[1] / "demo" / "data"
NEAREST = 10

Vectors = Float32[np.ndarray, "n d"]


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    model: str = option("demo", "Reference of the model.")
    items: int = option(1800, "The number of images, and of captions.", quick=200)


@dataclass(frozen=True)
class Type:
    """A type of embedding: how it is made, compared, and how many bytes 8 coordinates take."""

    name: str
    compared_by: str
    bytes_of_8: int
    make: Callable[[Vectors], np.ndarray]
    similarity: Callable[[np.ndarray, np.ndarray], np.ndarray]


def dot(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    product: np.ndarray = queries.astype(np.float64) @ rows.astype(np.float64).T
    return product


def euclidean(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Minus the squared distance."""
    query_squares, row_squares = (np.square(each.astype(np.float64)).sum(axis=1) for each in (queries, rows))
    distances: np.ndarray = query_squares[:, None] + row_squares - 2 * dot(queries, rows)
    return -distances


def hamming(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The number of bits that are equal, minus the number of those that differ."""
    query_signs, row_signs = (
        2 * np.unpackbits(each.view(np.uint8), axis=1).astype(np.float64) - 1 for each in (queries, rows)
    )
    return dot(query_signs, row_signs)


def types(value_range: float) -> list[Type]:
    return [
        Type("float, base64", "dot product", 32, lambda x: x, dot),
        Type("int8", "dot product", 8, lambda x: to_int8(x, value_range), dot),
        Type("uint8", "Euclidean distance", 8, lambda x: to_uint8(x, value_range), euclidean),
        Type("binary", "Hamming distance", 1, to_binary, hamming),
        Type("ubinary", "Hamming distance", 1, to_ubinary, hamming),
    ]


def nearest(similarity: np.ndarray, *, others: bool) -> np.ndarray:
    if others:
        np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]


def recall(type: Type, queries: Vectors, rows: Vectors, *, others: bool = False) -> float:
    """The share of the nearest rows by float that are among the nearest by the type."""
    expected = nearest(dot(queries, rows), others=others)
    found = nearest(type.similarity(type.make(queries), type.make(rows)), others=others)
    return float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(expected, found, strict=True)]))


def main(arguments: Sequence[str] | None = None) -> None:
    plan = parse(Plan, "bench.quantisation", __doc__, arguments)
    top = heading("bench.quantisation", arguments)
    clip = load_clip(plan.model, device="cpu", precision="float32")
    paths: list[Path] = []
    captions: list[str] = []
    for folder in (DEMO / "heldout", DEMO / "validation"):
        for line in (folder / "examples.jsonl").read_text().splitlines():
            example = json.loads(line)
            paths += [folder / "images" / f"{example[name]}.png" for name in ("image_0", "image_1")]
            captions += [example["caption_0"], example["caption_1"]]
    images = encode_images(clip, [PIL.Image.open(path) for path in paths[: plan.items]]).numpy()
    texts = encode_texts(clip, captions[: plan.items]).numpy()
    value_range = range_of(Golden.of(clip))
    rows = [
        (
            type.name,
            type.compared_by,
            type.bytes_of_8 * clip.embed_dim // 8,
            f"{recall(type, images, images, others=True):.3f}",
            f"{recall(type, texts, images):.3f}",
        )
        for type in types(value_range)
    ]
    print(top, end="\n\n")
    print(
        f"{len(images)} images, {len(texts)} captions, {clip.embed_dim} dimensions, range {value_range}.",
        end="\n\n",
    )
    print(
        markdown_table(("type", "compared by", "bytes", "image to image", "text to image"), rows, text=(0, 1))
    )


if __name__ == "__main__":
    main()
