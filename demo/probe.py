"""Linear probes of a CLIP: does its embedding say which object is where, and which colour belongs to which shape?

    python -m sds_clip.demo.probe MODEL... [--teacher TEACHER]

A probe is one linear map from an embedding to a score for each shape (or colour, or shape and colour together). It
is fitted on training scenes with two objects, by logistic regression of one choice between two:

- places of shapes, of colours: which of the two stands first, from left to right or from top to bottom;
- bindings: which of the two colours belongs to a shape.

It is measured on validation scenes, whose combinations are in no training scene. Chance is 50 %.

With a teacher, the latents into which a mapper turns the pooled image embedding are probed too, and the latents of the
teacher's own autoencoder. The mapper is the closed-form fit with which a run may start (`mapper_start: ridge`). What
the teacher's text encoder makes of a caption is probed as the mean over its tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from sds_clip.demo.captions import caption, draw_wording
from sds_clip.demo.options import parser_of, run
from sds_clip.demo.places import colour_of, in_order, shape_of
from sds_clip.demo.render import render
from sds_clip.demo.sets import scenes
from sds_clip.demo.teacher_tokenizer import tokenize
from sds_clip.demo.training_set import DemoPairs
from sds_clip.demo.winoground_sets import two_different
from sds_clip.demo.world import COLOURS, SHAPES, Scene, Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.mapper import Mapper
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import parse_config
from sds_clip.models.training.ridge import ridge_mapper

SEED = 6
FITTED, MEASURED = 4096, 2048
PROBES = ("places of shapes", "places of colours", "bindings")
POOLED, PATCHES, TEXT = "pooled image embedding", "last patch tokens", "text embedding"
"""What is probed of a model."""
_PENALTY = 1e-4
_BATCH = 256


@dataclass(frozen=True)
class Choices:
    """Choices between two: the row of an embedding, the score that must be higher, and the other one."""

    rows: Int[Tensor, "n"]
    right: Int[Tensor, "n"]
    wrong: Int[Tensor, "n"]
    scores: int
    """The number of scores of the probe."""


@cache
def two_object_scenes(split: Split, count: int, *, seed: int = SEED) -> list[Scene]:
    """Scenes of two objects that differ in shape and in colour."""
    found: list[Scene] = []
    start = 0
    while len(found) < count:
        found += filter(two_different, scenes(split, seed, start, _BATCH))
        start += _BATCH
    return found[:count]


def captions_of(scenes: Sequence[Scene]) -> list[str]:
    """A caption for each scene that names both colours and the relation."""
    return [
        caption(scene, draw_wording(2, np.random.default_rng((SEED, index)), complete=True))
        for index, scene in enumerate(scenes)
    ]


def choices_of(scenes: Sequence[Scene], probe: str) -> Choices:
    """The choices of one of PROBES, one or two for each scene."""
    chosen = [choice for row, scene in enumerate(scenes) for choice in _choices(scene, row, probe)]
    rows, right, wrong = torch.tensor(chosen).T
    sizes = {"places of shapes": len(SHAPES), "places of colours": len(COLOURS)}
    return Choices(rows, right, wrong, sizes.get(probe, len(SHAPES) * len(COLOURS)))


def fit(features: Float[Tensor, "n d"], choices: Choices) -> Float[Tensor, "scores d"]:
    """Logistic regression of right against wrong with a small L2 penalty, by L-BFGS."""
    inputs = features.clone()  # outside inference mode
    weights = torch.zeros(choices.scores, inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = softplus(-_margins(inputs, weights, choices)).mean() + _PENALTY * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def right_choices(
    features: Float[Tensor, "n d"], weights: Float[Tensor, "scores d"], choices: Choices
) -> list[bool]:
    """Whether each choice is right; a tie is wrong."""
    right: list[bool] = (_margins(features, weights, choices) > 0).tolist()
    return right


def probed(
    fitted: Float[Tensor, "n d"], measured: Float[Tensor, "m d"], scenes: tuple[list[Scene], list[Scene]]
) -> list[list[bool]]:
    """Whether each choice of each of PROBES is right on the second set, after fitting it to the first."""
    mean, deviation = fitted.mean(dim=0), fitted.std(dim=0).clamp(min=1e-6)
    train, validation = ((each - mean) / deviation for each in (fitted, measured))
    found = []
    for probe in PROBES:
        weights = fit(train, choices_of(scenes[0], probe))
        found.append(right_choices(validation, weights, choices_of(scenes[1], probe)))
    return found


@torch.no_grad()
def image_features(clip: Clip, scenes: Sequence[Scene]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n p"]]:
    """The pooled embeddings of the scenes' images, and the image tower's last patch tokens, one after another."""
    pooled, patches = [], []
    visual: Any = clip.network
    for batch in _batches(scenes):
        pixels = torch.stack([clip.preprocess(PIL.Image.fromarray(render(scene))) for scene in batch])
        pooled.append(clip.encode_image(pixels).float())
        tokens = visual.visual.forward_intermediates(pixels, indices=1, intermediates_only=True)
        patches.append(tokens["image_intermediates"][-1].flatten(1).float())
    return torch.cat(pooled), torch.cat(patches)


def text_features(clip: Clip, scenes: Sequence[Scene]) -> Float[Tensor, "n d"]:
    return encode_texts(clip, captions_of(scenes))


def probe_model(
    clip: Clip,
    split: Split = Split.VALIDATION,
    *,
    seed: int = SEED,
    sources: Sequence[str] = (POOLED, PATCHES, TEXT),
) -> dict[str, list[list[bool]]]:
    """The choices of PROBES from the model's representations, on scenes that a part and a seed determine."""
    scenes = probed_scenes(split, seed)
    images = [image_features(clip, each) for each in scenes]
    texts = [text_features(clip, each) for each in scenes]
    features = {
        POOLED: [pooled for pooled, _ in images],
        PATCHES: [patches for _, patches in images],
        TEXT: texts,
    }
    return {source: probed(features[source][0], features[source][1], scenes) for source in sources}


def probe_latents(clip: Clip, teacher: Teacher) -> dict[str, list[list[bool]]]:
    """The choices of PROBES from latents that a mapper makes of the pooled embedding, and from real ones."""
    scenes = probed_scenes()
    trained_on = DemoPairs(FITTED)
    options = {"base": "demo", "data": "demo", "objective": "sds-clip", "teacher": "demo", "steps": 1}
    config = parse_config({**options, "batch_size": 128, "ridge_images": FITTED})
    mapper = ridge_mapper(config, clip, teacher, trained_on)
    made = [latents_of(image_features(clip, each)[0], mapper) for each in scenes]
    real = [real_latents(clip, teacher, each) for each in scenes]
    return {
        "mapper's latents": probed(made[0], made[1], scenes),
        "autoencoder's latents": probed(real[0], real[1], scenes),
    }


def probe_text_encoder(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase) -> list[list[bool]]:
    """The choices of PROBES from the mean of the encoder's outputs for a caption."""
    scenes = probed_scenes()
    fitted, measured = (_caption_features(encoder, tokenizer, each) for each in scenes)
    return probed(fitted, measured, scenes)


@torch.no_grad()
def _caption_features(
    encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, scenes: Sequence[Scene]
) -> Float[Tensor, "n d"]:
    tokens, mask = tokenize(tokenizer, captions_of(scenes))
    read = encoder(tokens, attention_mask=mask).last_hidden_state
    found: Tensor = (read * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    return found


def probed_scenes(split: Split = Split.VALIDATION, seed: int = SEED) -> tuple[list[Scene], list[Scene]]:
    """The scenes that probes are fitted to, and those that they are measured on."""
    return two_object_scenes(Split.TRAIN, FITTED), two_object_scenes(split, MEASURED, seed=seed)


@torch.no_grad()
def latents_of(features: Float[Tensor, "n d"], mapper: Mapper) -> Float[Tensor, "n p"]:
    latents: Tensor = mapper(features)
    return latents.flatten(1)


def real_latents(clip: Clip, teacher: Teacher, scenes: Sequence[Scene]) -> Float[Tensor, "n p"]:
    view = teacher_view(clip, teacher.resolution_px)
    return torch.cat(
        [
            teacher.encode_image(
                torch.stack([view(PIL.Image.fromarray(render(scene))) for scene in batch])
            ).flatten(1)
            for batch in _batches(scenes)
        ]
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="References of the models to probe.")
    parser.add_argument("--teacher", help="Reference of a teacher, whose latents and texts are probed too.")
    options = parser.parse_args()
    if not options.models and not options.teacher:
        parser.error("Give a model or --teacher.")
    teacher = None
    if options.teacher:
        teacher = load_teacher(options.teacher, device="cpu", precision="float32", vae=True)
    print(f"| model | from | {' | '.join(f'{probe}, %' for probe in PROBES)} |")
    print("| --- | --- | ---: | ---: | ---: |")
    for reference in options.models:
        clip = load_clip(reference, device="cpu", precision="float32")
        latents = probe_latents(clip, teacher) if teacher else {}
        for source, found in (probe_model(clip) | latents).items():
            print(_row(reference, source, found), flush=True)
    if teacher:
        encoder, tokenizer = teacher.text_encoders["text_encoder"], teacher.tokenizers["text_encoder"]
        print(_row(options.teacher, "text encoder", probe_text_encoder(encoder, tokenizer)))
    print(f"| chance | | {' | '.join(['50.0'] * len(PROBES))} |")


def _row(reference: str, source: str, found: Sequence[Sequence[bool]]) -> str:
    return f"| {reference} | {source} | {' | '.join(f'{100 * share:.1f}' for share in accuracies(found))} |"


def accuracies(found: Sequence[Sequence[bool]]) -> list[float]:
    """The share of right choices of each of PROBES."""
    return [fmean(right) for right in found]


def _choices(scene: Scene, row: int, probe: str) -> list[tuple[int, int, int]]:
    first, second = in_order(scene)
    if probe == "places of shapes":
        return [(row, shape_of(first), shape_of(second))]
    if probe == "places of colours":
        return [(row, colour_of(first), colour_of(second))]
    own = [(shape_of(thing), colour_of(thing)) for thing in (first, second)]
    return [
        (row, shape * len(COLOURS) + colour, shape * len(COLOURS) + other)
        for (shape, colour), (_, other) in (own, own[::-1])
    ]


def _margins(features: Tensor, weights: Tensor, choices: Choices) -> Tensor:
    return (features[choices.rows] * (weights[choices.right] - weights[choices.wrong])).sum(dim=1)


def _batches(scenes: Sequence[Scene]) -> Iterator[Sequence[Scene]]:
    return (scenes[start : start + _BATCH] for start in range(0, len(scenes), _BATCH))


if __name__ == "__main__":
    run(main)
