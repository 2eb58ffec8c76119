"""Many versions over one base, made without training: LayerNorms, or factors of LoRA, moved by noise from a seed."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from bench import servers
from bench.report import note
from bench.servers import Running
from sds_clip.app.data_folder import DataFolder
from sds_clip.app.registry.manifest import write_manifest
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion
from sds_clip.models.checkpoints.delta_file import write_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.lora import attach
from sds_clip.models.clip.mixed import Member, as_member
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.sharing import share
from sds_clip.models.clip.student import trainable_parameters
from sds_clip.models.clip.version import LORA_SCALE

JOB = "job_bench"
MOVED = 0.05  # standard deviation of the noise added to LayerNorm weights and factors


def make_version_set(folder: Path, model: str, count: int, rank: int = 0) -> list[str]:
    """Publish so many versions below `folder`/data, and register them in `folder`/sds-clip.db. Returns their hashes.

    With a rank, they are of LoRA on the attention. A folder that has as many of the same base is kept.
    """
    base = load_clip(model, device="cpu", precision="float32")
    names = folder / f"{base.version[:12]}-{count}.txt"
    if names.exists():
        return names.read_text().split()
    note(f"making {count} versions, once")
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "data"
    (data / "versions").mkdir(parents=True)
    store = Store(f"sqlite:///{folder / 'sds-clip.db'}")
    store.migrate()
    made = []
    for clip, tensors in moved_versions(base, count, rank):
        here = data / "versions" / clip.version
        here.mkdir()
        write_delta(
            here,
            base,
            clip.version,
            tensors,
            Golden.of(clip),
            {"configuration": {}, "data": {}, "metrics": {}},
        )
        manifest = write_manifest(here, clip.version, JOB, {})
        store.versions.register(NewVersion(clip.version, f"versions/{clip.version}", {}, manifest.size_bytes))
        made.append(clip.version)
    store.close()
    names.write_text("\n".join(made))
    return made


def serving(
    folder: Path, model: str, precision: str, cache: Path, state: str = "state", **environment: str
) -> AbstractContextManager[Running]:
    """The service over the versions and the database of a folder."""
    return servers.running(
        servers.sds_clip(f"{folder.name} {precision}", "serve", "--model", model, "--precision", precision),
        cache,
        SDS_CLIP_DATABASE_URL=f"sqlite:///{folder / 'sds-clip.db'}",
        SDS_CLIP_DATA_DIR=str(folder / "data"),
        SDS_CLIP_STATE_DIR=str(folder / state),
        **environment,
    )


def register_only(folder: Path, count: int) -> None:
    """Register versions that nobody asks for: rows without files, in a data folder that the database knows."""
    store = Store(f"sqlite:///{folder / 'sds-clip.db'}")
    store.migrate()
    (folder / "data").mkdir(parents=True)
    DataFolder(store.database, folder / "data").check()
    for number in range(count):
        version = f"{number:064x}"
        store.versions.register(
            NewVersion(version, f"versions/{version}", {"architecture": "ViT-B-32"}, 2**18)
        )
    store.close()


def moved_versions(base: Clip, count: int, rank: int) -> Iterator[tuple[Clip, dict[str, torch.Tensor]]]:
    first = as_member(base).network
    if not isinstance(first, Member):
        raise RuntimeError(f"{base.reference} has no family")
    if rank:
        copy = share(base.network)
        trained = attach(copy, targets="attention", rank=rank, scale=1.0, seed=0)
    else:
        trained = trainable_parameters(base.network)
    for seed in range(count):
        random = torch.Generator().manual_seed(seed)
        tensors = {
            name: value.detach() + MOVED * torch.randn(value.shape, generator=random)
            for name, value in trained.items()
        }
        if rank:
            tensors[LORA_SCALE] = torch.ones(())
        network = first.with_tensors(tensors)
        assert network is not None
        yield replace(base, network=network, version=base.identity.replacing(tensors).version), tensors
