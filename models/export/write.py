"""Write a whole checkpoint as a folder that open_clip (`local-dir:`), transformers or onnxruntime reads by itself."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sds_clip.models.atomic import atomic_folder
from sds_clip.models.checkpoints.load import load_clip, source_of, tokenizer_files
from sds_clip.models.checkpoints.references import BadReferenceError, Folder, parse
from sds_clip.models.checkpoints.sources import WEIGHT_FILES, Source, write_config
from sds_clip.models.choices import ExportFormat
from sds_clip.models.clip.lora import layers
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.version import LORA_SCALE, Identity, as_stored, stored
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import Agreement
from sds_clip.models.export.model_card import figures_beside, read_figures, write_card


def export_full(
    model: Clip | str,
    out: Path,
    alpha: float | None = None,
    *,
    format: ExportFormat = "open_clip",
    results: Sequence[Path] = (),
) -> Path:
    """Write a whole checkpoint, usually a delta applied to its base, into `out` with a model card, and return it.

    `alpha` blends from a delta's base (0) to the delta (1); by default it is what the reference says. In open_clip's
    layout every tensor keeps the format that it was stored in; the others are float32. The folder appears only after
    it was read back: with the version that the reference has, or by the format's own library with the same
    embeddings. Only `peft`, which writes the factors of a LoRA delta for whoever has its base, is not read back. The
    card has the figures of `results`, and of the evaluations in the folders beside a delta.

    Raises CheckpointError if the reference cannot be loaded or has no such format, or `out` exists or cannot be
    written.
    """
    reference = parse(model.reference if isinstance(model, Clip) else model)
    if alpha is not None:
        if not isinstance(reference, Folder):
            raise BadReferenceError(
                f"{reference} is not a delta, so alpha has nothing to blend it with. Remove alpha."
            )
        reference = parse(str(replace(reference, alpha=alpha)))
    with atomic_folder(out) as working:
        clip = load_clip(str(reference), device="cpu", precision="float32")
        figures = [read_figures(file, clip.version) for file in results]
        figures = figures or list(figures_beside(reference, clip.version))
        agreement = _WRITERS[format](working, clip, source_of(reference))
        write_card(working, clip, reference, out.name, format, figures, agreement)
    return out


def _write_open_clip(working: Path, clip: Clip, source: Source) -> None:
    weights = dict(as_stored(clip.network, stored_formats(clip)))
    expected = clip.version
    if LORA_SCALE in clip.identity.tensors:  # merged into the weights, the factors are another version
        tensors = {name: stored(value) for name, value in weights.items()}
        expected = Identity(tensors, clip.identity.description).version
    write_folder(working, source, weights)
    copy_tokenizer(source, working)
    written = load_clip(f"local-dir:{working}", device="cpu", precision="float32")
    if written.version != expected:
        raise CheckpointError(
            f"{clip.reference} cannot be exported: the files that were written give version "
            f"{written.version[:12]} instead of {expected[:12]}."
        )


def stored_formats(clip: Clip) -> dict[str, torch.dtype]:
    """Return the formats of a checkpoint's tensors. Weights that factors were merged into are float32."""
    formats = {name: value.dtype for name, value in clip.identity.tensors.items()}
    merged = [layer.weight for name, layer in layers(clip.network) if f"{name}.lora.A" in formats]
    return formats | dict.fromkeys(merged, torch.float32)


def _write_transformers(working: Path, clip: Clip, source: Source) -> Agreement:
    from sds_clip.models.export.to_transformers import write_transformers

    return write_transformers(working, clip, source)


def _write_onnx(working: Path, clip: Clip, source: Source) -> Agreement:
    from sds_clip.models.export.to_onnx import write_onnx

    return write_onnx(working, clip, source)


def _write_peft(working: Path, clip: Clip, source: Source) -> None:
    from sds_clip.models.export.peft import write_peft

    write_peft(working, clip, source)


# Imported when they are used: a service only writes open_clip's layout.
_WRITERS: dict[ExportFormat, Callable[[Path, Clip, Source], Agreement | None]] = {
    "open_clip": _write_open_clip,
    "transformers": _write_transformers,
    "onnx": _write_onnx,
    "peft": _write_peft,
}


def copy_tokenizer(source: Source, folder: Path) -> None:
    """Copy a checkpoint's own tokenizer, if it has one, into a folder."""
    for file in tokenizer_files(source.tokenizer, beside=("config.json",)) if source.tokenizer else ():
        shutil.copyfile(file, folder / file.name)


def write_folder(folder: Path, source: Source, weights: Mapping[str, Tensor]) -> None:
    """Write weights, and what `source` says of them, in open_clip's layout into an existing folder."""
    stored = {name: value.clone().contiguous() for name, value in weights.items()}
    save_file(stored, folder / WEIGHT_FILES[0], metadata={"format": "pt"})
    write_config(folder, source, {"matryoshka_dimensions": source.dimensions} if source.dimensions else {})
