"""What the padding of texts costs: the text tower forward and backward, with whole contexts and without padding.

ViT-B/32 with random weights, in float32, on captions of the demo world.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import open_clip
import torch
from torch import Tensor

from bench.options import option, parse
from bench.report import heading, ratio, spread, training_versions
from bench.rounds import in_turns, timed
from sds_clip.demo.sets import training_pairs
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.markdown import markdown_table
from sds_clip.models.training.trainer import plain_attention

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    rounds: int = option(5, "Number of interleaved rounds.", quick=1)
    texts: int = option(64, "Number of captions in a batch.", quick=2)


def main(arguments: Sequence[str] | None = None) -> int:
    plan = parse(Plan, "bench.texts", __doc__, arguments)
    about = heading("bench.texts", arguments)
    network = open_clip.create_model("ViT-B-32", precision="fp32")
    whole = open_clip.get_tokenizer("ViT-B-32")(training_pairs(0, 0, plan.texts).captions)
    short = without_padding(network, whole)

    def step(encode: Callable[[], Tensor]) -> float:
        with plain_attention(CPU):
            return timed(lambda: torch.autograd.backward(encode().sum()), CPU)

    seconds = in_turns(
        "text tower",
        plan.rounds,
        {
            "whole contexts": lambda: step(lambda: network.encode_text(whole)),
            "without padding": lambda: step(lambda: encode_text(network, short)),
        },
        warm_up=True,
    )
    columns = {"whole contexts": whole.shape[1], "without padding": short.shape[1]}
    rows = [
        [name, str(columns[name]), spread(each, 3), f"{ratio(each, seconds['whole contexts']):.3f}"]
        for name, each in seconds.items()
    ]
    table = markdown_table((f"{plan.texts} captions", "tokens each", "s", "over whole contexts"), rows)
    print("\n\n".join([about, training_versions(CPU), table]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
