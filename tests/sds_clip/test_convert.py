import json
import shlex
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from sds_clip.cli import main
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import BadReferenceError, parse
from tests.sds_clip.command_line import parsed
from tests.sds_clip.transcript import test_transcript  # noqa: F401

ARCHITECTURE = "ViT-B-32-tiny"


@pytest.fixture
def pickled(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training checkpoint of an architecture as small as the tests' one, known to open_clip."""
    config = json.loads((checkpoint / "open_clip_config.json").read_text())["model_cfg"]
    file = tmp_path / f"{ARCHITECTURE}.json"
    file.write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
    open_clip.add_model_config(file)
    network = open_clip.create_model(ARCHITECTURE)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    return tmp_path / "epoch_3.pt"


def test_an_image_tower_is_completed_by_its_base(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"local-dir:{checkpoint}"
    tower = {
        name.removeprefix("visual."): value
        for name, value in load_file(checkpoint / "open_clip_model.safetensors").items()
        if name.startswith("visual.")
    }
    torch.save(tower, tmp_path / "tower.ckpt")
    arguments = ["convert", str(tmp_path / "tower.ckpt"), "--out", str(tmp_path / "out")]

    assert main([*arguments, "--base", base]) == 0

    reference = capsys.readouterr().out.strip()
    assert load_clip(reference).version == load_clip(base).version
    assert main(arguments) == 2
    assert "--base" in capsys.readouterr().err


def test_the_command_that_a_refused_pickle_names_is_understood() -> None:
    with pytest.raises(BadReferenceError) as refused:
        parse("weights.pt")
    command = str(refused.value).split("`")[1]
    options = parsed(shlex.split(command)[1:])
    assert (str(options["file"]), str(options["out"])) == ("weights.pt", "FOLDER")
