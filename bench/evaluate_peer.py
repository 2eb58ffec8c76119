"""CLIP_benchmark's own evaluation of the same weights on the same files, with as many workers.

Its model, data set, `DataLoader`, collating and metric are put together as its command line does with `--no_amp`.
Winoground alone has its data set made here, as its own reads the hub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clip_benchmark.datasets.builder import image_captions_collate_fn
from clip_benchmark.datasets.sugar_crepe import SugarCrepe
from clip_benchmark.metrics import image_caption_selection
from clip_benchmark.models.open_clip import load_open_clip
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.evaluate_sets import PARTS
from models.machine import usable_cores

BATCH_SIZE = 32
"""Images in one forward."""


class WinogroundFolder(Dataset[tuple[Tensor, list[str]]]):
    """What CLIP_benchmark's `WinoGround` gives, from files instead of the hub."""

    def __init__(self, folder: Path, transform: Any) -> None:
        lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        self._records = [json.loads(line) for line in lines]
        self._images = folder / "images"
        self._transform = transform

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]]:
        record = self._records[index]
        images = [Image.open(self._images / f"{record[f'image_{side}']}.jpg") for side in (0, 1)]
        captions = [record["caption_0"], record["caption_1"]]
        return torch.stack([self._transform(image) for image in images]), captions


@dataclass(frozen=True)
class Peer:
    """A model as CLIP_benchmark loads it."""

    model: Any
    transform: Any
    tokenizer: Any

    @staticmethod
    def load(folder: Path) -> Peer:
        """By its loader, from open_clip's layout."""
        model, transform, tokenizer = load_open_clip(f"local-dir:{folder}", None)
        return Peer(model.eval(), transform, tokenizer)

    def winoground(self, folder: Path) -> dict[str, float]:
        """Its text, image and group accuracy, under our names."""
        found = self._evaluate(WinogroundFolder(folder, self.transform), BATCH_SIZE // 2)
        names = {"text_score": "text_acc", "image_score": "image_acc", "group_score": "acc"}
        return {ours: found[theirs] for ours, theirs in names.items()}

    def sugarcrepe(self, folder: Path) -> dict[str, float]:
        """Its accuracy on each of the seven files, one run after the other, as it has them."""
        found = {}
        for name in PARTS:
            part = SugarCrepe(str(folder / "val2017"), str(folder / f"{name}.json"), self.transform)
            found[name] = self._evaluate(part, BATCH_SIZE)["acc"]
        return found

    def _evaluate(self, data: Any, batch_size: int) -> dict[str, float]:
        loader = DataLoader(
            data,
            batch_size=batch_size,
            shuffle=False,
            num_workers=usable_cores(),
            collate_fn=image_captions_collate_fn,
        )
        found: dict[str, float] = image_caption_selection.evaluate(
            self.model, loader, self.tokenizer, "cpu", amp=False
        )
        return found
