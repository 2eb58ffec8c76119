"""How often a model's proposals hold the true caption: `python -m sds_clip.demo.proposals MODEL...`.

The pairs are those of the setting `proposed` of docs/experiments/plan.md.
"""

from __future__ import annotations

from sds_clip.demo.options import count, parser_of, run
from sds_clip.demo.training_set import DISTILLATION_SEED, PROPOSED, DemoPairs, true_captions
from sds_clip.models.markdown import markdown_table


def shares(pairs: DemoPairs) -> tuple[int, float, float]:
    """Of the scenes with two objects: their number, the share with a true caption among the proposals, and first."""
    among, first = [], []
    for index, scene in enumerate(pairs.scenes):
        if scene.relation is not None:
            (caption,), (others,) = pairs.sample(index).captions, pairs.sample(index).negatives
            right = true_captions(scene)
            among.append(not right.isdisjoint((caption, *others)))
            first.append(caption in right)
    return len(among), sum(among) / len(among), sum(first) / len(first)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["demo"], help="References of models.")
    parser.add_argument("--size", type=count, default=1024, help="Number of training pairs.")
    parser.add_argument("--seed", type=int, default=DISTILLATION_SEED, help="Seed of the pairs.")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        pairs = DemoPairs(options.size, options.seed, captions="proposed", proposer=model)
        scenes, among, first = shares(pairs)
        rows.append([model, scenes, f"{among:.1%}", f"{first:.1%}"])
    print(
        markdown_table(
            ["model", "scenes with two objects", f"true among the {PROPOSED}", "true at first"], rows
        )
    )


if __name__ == "__main__":
    run(main)
