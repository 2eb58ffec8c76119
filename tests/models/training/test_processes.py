"""Two processes on this machine, as torchrun starts them, with half of every batch each.

With two GPUs for the tests, each process has one, and they exchange gradients by NCCL.
"""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from sds_clip.models.errors import DataError, TrainingError
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts, load_parts
from sds_clip.models.training.processes import find_rank, start_alike
from sds_clip.models.training.run import train
from tests.training import (
    EVERY_TERM,
    PLACE,
    Stopper,
    TwoCaptions,
    configure,
    gradients,
    save_coco,
    state_after,
)

GPUS = torch.cuda.device_count() > 1
pytestmark = [pytest.mark.gpu] if GPUS else []
UNCLIPPED = 1e9
RUNS: dict[str, dict[str, object]] = {
    "sds-clip": {"sds_batch_size": 4},
    "past the U-Net": {"gradient": "sds", "micro_batch_size": 3},
    "condition": {"objective": "condition", "conflicts": "project", "sds_batch_size": 6},
    "noise-contrast": {"objective": "noise-contrast"},
    "score": {"objective": "score", "negatives": "swap", "score_draws": 2, "sds_batch_size": 6},
    "text-map": {"objective": "clip", "negatives": "swap", "trainable": "text-map"},
    "lora": {"sds_batch_size": 4, "trainable": "lora", "lora_targets": "both"},
    "contrast": {
        "objective": "clip",
        "negatives": "swap",
        "negatives_loss": "contrast",
        "negatives_count": 2,
    },
    "every term": {"sds_batch_size": 6, "warmup_steps": 2, "lambda": "auto", **EVERY_TERM},
}
Names = dict[str, str]


def _config(run: str, **names: str) -> FinetuneConfig:
    """Three steps, each with a checkpoint and a line in the log."""
    every = {"save_every": 1, "keep_checkpoints": 3, "log_every": 1}
    return configure(steps=3, max_gradient_norm=UNCLIPPED, **every, **names, **RUNS[run])


def _parts(run: str, parts: Parts) -> Parts:
    return replace(parts, pairs=TwoCaptions(parts.pairs)) if run == "every term" else parts


def _process(rank: int, port: int, names: Names, out: Path) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **address}
    torch.backends.cudnn.allow_tf32 = False  # their gradients are compared with a CPU's
    here = find_rank(names["device"])
    assert (here.index, here.world_size, here.device.type) == (rank, 2, "cuda" if GPUS else "cpu")
    parameter = torch.nn.Parameter(torch.tensor([1.0 + rank], device=here.device))
    start_alike([parameter])
    assert parameter.item() == 1
    parts = load_parts(configure(objective="score", negatives="swap", **names), here)
    for run in RUNS:
        train(_config(run, **names), _parts(run, parts), out / run, here)
    config = configure(**names)
    stopped = train(config, parts, out / "stopped", here, watcher=Stopper(lambda: rank == 1))
    assert (stopped.delta, stopped.steps_done) == (None, 1)
    with pytest.raises(TrainingError, match="--out"):
        train(config, parts, out / ("stopped" if rank == 0 else "other"), here, resume=True)
    with pytest.raises(DataError, match=r"(?s)1 of 24 samples .*0\.png"):
        load_parts(configure(**(names | {"data": str(out / "broken" / "captions.json")})), here)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(
    tiny_folder: Path, data: Path, teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where two processes have left their runs."""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {
        "base": f"local-dir:{tiny_folder}",
        "data": str(data),
        "teacher": str(teacher_folder),
        "device": "auto" if GPUS or not torch.cuda.is_available() else "cpu",
        "teacher_precision": "float32",
    }
    (save_coco(out / "broken").parent / "0.png").unlink()
    mp.spawn(_process, (port, names, out), nprocs=2)
    return out


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_have_the_gradients_and_weights_of_one(
    run: str, together: Path, parts: Parts, tmp_path: Path
) -> None:
    train(_config(run), _parts(run, parts), tmp_path, PLACE)
    expected, found = gradients(state_after(1, tmp_path)), gradients(state_after(1, together / run))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    states = [out / "checkpoints" / "step-00000001" / "state.json" for out in (tmp_path, together / run)]
    of_one, of_both = (json.loads(state.read_text()) for state in states)
    assert of_one["run"]["data_hash"] == of_both["run"]["data_hash"]
    assert of_both["state"] == pytest.approx(of_one["state"], rel=1e-4)
    expected, found = state_after(3, tmp_path), state_after(3, together / run)
    for name in (name for name in expected if "|" not in name):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-4)


def test_the_log_holds_the_means_over_both(together: Path, parts: Parts, tmp_path: Path) -> None:
    train(_config("sds-clip"), parts, tmp_path, PLACE)
    lines = [(out / "log.jsonl").read_text().splitlines()[0] for out in (tmp_path, together / "sds-clip")]
    expected, found = map(json.loads, lines)
    for name in ("clip", "sds", "residual", "loss", "gradient_norm", "mapper_gradient_norm"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_a_stop_in_one_process_stops_all_and_folders_that_differ_are_refused(together: Path) -> None:
    """Asserted in the processes themselves; here, that they came so far."""
    assert [kept.name for kept in (together / "stopped" / "checkpoints").iterdir()] == ["step-00000001"]
