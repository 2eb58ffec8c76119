import pytest
import yaml

from sds_clip.models.errors import ConfigError
from sds_clip.models.training.config import FinetuneConfig, parse_config
from tests.training import configure


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1}, r"learning_rate: .*did you mean lr\?"),
        ({"pace": 1}, r"pace: .*\bmapper_lr\b"),
        ({"objective": "sds"}, r"objective: .*'clip', 'sds-clip', 'condition', 'noise-contrast' or 'score'"),
        ({"gradient": "half"}, r"gradient: .*'full' or 'sds'"),
        ({"lr": "fast"}, "lr: .*number"),
        ({"lr": float("nan")}, "lr: "),
        ({"lr": 0}, "lr: .*0"),
        ({"lambda": -1}, "lambda: .*0"),
        ({"batch_size": 1}, "batch_size: .*2"),
        ({"seed": 2**40}, "seed: "),
        ({"steps": None}, "steps.*epochs"),
        ({"epochs": 1.0}, "steps.*epochs"),
        ({"teacher": None}, "sds-clip.*teacher"),
        ({"objective": "score"}, "objective score needs negatives"),
        ({"objective": "score", "negatives": "swap", "score_candidates": "negatives"}, "use negatives: data"),
        (
            {
                "objective": "score",
                "negatives": "data",
                "negatives_count": 1,
                "score_candidates": "negatives",
            },
            "at least two",
        ),
        ({"objective": "score", "negatives": "swap", "teacher": None}, "score needs a teacher"),
        ({"objective": "condition", "trainable": "text-map"}, "only texts; use the objective clip"),
        ({"objective": "score", "negatives": "swap", "negatives_loss": "contrast"}, "needs negatives_loss"),
        ({"objective": "condition", "guidance": 2.0}, "no caption"),
        ({"objective": "noise-contrast", "guidance": 2.0}, "noise-contrast has no caption"),
        ({"objective": "noise-contrast", "sds_batch_size": 6}, "multiple of 4 as sds_batch_size"),
        ({"objective": "condition", "gradient": "sds"}, "gradient: full"),
        ({"objective": "score", "negatives": "swap", "conflicts": "project"}, "conflicts: project"),
        ({"lambda": "much"}, "lambda: .*number"),
        ({"lambda": "auto", "objective": "clip"}, "lambda: auto.*objective clip has no such loss"),
        (
            {"lambda": "auto", "objective": "score", "negatives": "swap"},
            "lambda: auto.*objective score has no such loss.*negatives_weight",
        ),
        ({"lambda": "auto", "warmup_steps": 0}, "lambda: auto is measured in the warm-up"),
        ({"rank_weight": 0.4}, "rank_weight needs negatives"),
        ({"intra_modal_weight": 0.4}, "intra_modal_weight needs negatives"),
        ({"negatives_focal_gamma": 2}, "negatives_focal_gamma needs negatives"),
        ({"negatives_label_smoothing": 1}, "negatives_label_smoothing: .*less than 1"),
        (
            {"negatives": "data", "score_candidates": "negatives", "rank_weight": 1},
            "rank_weight takes the negatives to be wrong",
        ),
        (
            {"negatives": "swap", "negatives_loss": "contrast", "negatives_focal_gamma": 2},
            "for negatives_loss: choice",
        ),
        (
            {"objective": "score", "negatives": "swap", "negatives_label_smoothing": 0.02},
            "needs one right caption, .*score_labels: hard",
        ),
        ({"objective": "score", "negatives": "swap", "score_by": "labels"}, "labels.*go together"),
        ({"labels": "labels.jsonl"}, "labels.*go together"),
        ({"lora_rank": 16}, "lora_rank is for trainable: lora, and this run trains layernorm"),
        ({"trainable": "lora", "lora_alpha": 1e300}, "lora_alpha must be at most 1e"),
        ({"t_min": 0.9, "t_max": 0.1}, "t_min.*t_max"),
        ({"t_max": 1.5}, "t_max: .*1"),
        ({"sds_batch_size": 9}, "sds_batch_size.* batch_size.* 8"),
        ({"lr": -1, "gradient": "half"}, "lr: .* gradient: "),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(**options)


def test_data_are_required() -> None:
    with pytest.raises(ConfigError, match="data: "):
        parse_config({"steps": 1, "objective": "clip"})


def test_the_paper_s_lambda_is_the_weight_of_sds() -> None:
    assert configure(**{"lambda": 0.5}) == configure(sds_weight=0.5)


@pytest.mark.parametrize(
    ("objective", "weight"), [("sds-clip", 1.0), ("condition", 200.0), ("noise-contrast", 1.0)]
)
def test_each_objective_has_a_weight_of_its_own_by_default(objective: str, weight: float) -> None:
    assert configure(objective=objective).teacher_weight == weight
    assert configure(objective=objective, sds_weight=3.0).teacher_weight == 3.0


def test_words_of_a_command_line_are_read_as_their_types() -> None:
    found = configure(steps="3", lr="1e-3", t_min="0.1", sds_batch_size="4")
    assert found == configure(steps=3, lr=1e-3, t_min=0.1, sds_batch_size=4)


def test_a_saved_configuration_is_read_back_the_same() -> None:
    config = configure(images="pictures", guidance=2.0, negatives="swap")
    saved = yaml.safe_dump(config.model_dump(mode="json"))
    assert parse_config(yaml.safe_load(saved)) == config


def test_every_option_is_explained() -> None:
    unexplained = {name for name, field in FinetuneConfig.model_fields.items() if not field.description}
    assert unexplained == set()
