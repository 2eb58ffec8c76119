from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sds_clip.app.errors import InvalidConfiguration
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import Subset
from sds_clip.models.errors import ConfigError
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.validation import validate
from tests.training import PLACE, captions, configure


def loaded(out: Path, alpha: str = "") -> Clip:
    return load_clip(f"local-dir:{out / 'delta'}{alpha}", device="cpu", precision="float32")


@pytest.mark.parametrize("trainable", ["layernorm", "all", "text-map", "lora"])
def test_a_run_keeps_the_part_of_its_weights_that_a_loaded_delta_would(
    trainable: str, parts: Parts, tmp_path: Path
) -> None:
    options: dict[str, object] = {"objective": "clip", "teacher": None, "trainable": trainable, "lr": 0.01}
    train(configure(**options), parts, tmp_path / "whole", PLACE)
    train(configure(alpha=0.25, **options), parts, tmp_path / "part", PLACE)
    expected, found = loaded(tmp_path / "whole", "#alpha=0.25"), loaded(tmp_path / "part")
    assert found.version == expected.version
    tokens = parts.base.tokenizer(captions(4))
    assert torch.equal(found.encode_text(tokens), expected.encode_text(tokens))
    assert not torch.equal(found.encode_text(tokens), parts.base.encode_text(tokens))


def test_the_validation_pairs_choose_the_part_with_the_least_loss(parts: Parts, tmp_path: Path) -> None:
    watched = replace(parts, validation=Subset(parts.pairs, range(12, 24)))
    options: dict[str, object] = {"objective": "clip", "teacher": None, "trainable": "all", "lr": 0.2}
    train(configure(**options), parts, tmp_path / "whole", PLACE)
    result = train(configure(alpha="auto", val="pairs", **options), watched, tmp_path / "chosen", PLACE)
    losses = {
        alpha: validate(loaded(tmp_path / "whole", f"#alpha={alpha}"), watched.validation, 8)[
            "validation_clip"
        ]
        for alpha in (0.25, 0.5, 0.75, 1)
    }
    best = min(losses, key=lambda alpha: losses[alpha])
    assert best < 1  # at such a rate, else the test would say nothing
    assert result.metrics["validation_alpha"] == best
    assert result.metrics["validation_clip"] == pytest.approx(losses[best])
    assert loaded(tmp_path / "chosen").version == loaded(tmp_path / "whole", f"#alpha={best}").version


@pytest.mark.parametrize("alpha", [0, -0.5, 1.5, "best", float("nan"), None])
def test_other_parts_are_refused(alpha: object) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        configure(alpha=alpha)


def test_no_validation_pairs_no_choice() -> None:
    with pytest.raises(ConfigError, match="alpha: auto is chosen by validation pairs"):
        configure(alpha="auto")
    body = {"training_data": "ds_1", "objective": "clip", "hyperparameters": {"steps": 1, "alpha": "auto"}}
    with pytest.raises(InvalidConfiguration, match="alpha: auto is chosen by validation pairs"):
        FinetuneSpec.model_validate(body)
    spec = FinetuneSpec.model_validate(body | {"validation_data": "ds_2"})
    assert spec.as_shown()["alpha"] == "auto"
    assert FinetuneSpec.read(spec.as_row()) == spec
