"""Small data sets, as files and as rows."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from sds_clip.app.datasets.folders import FILES, DatasetFolders
from sds_clip.app.store import Store
from sds_clip.app.store.verdicts import check_of
from sds_clip.worker.config import WorkerConfig
from tests.checks import claimed_check
from tests.training import captions


def save_winoground(folder: Path, count: int = 4, *, seed: int = 0) -> Path:
    """Items of two pictures and two captions."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    lines = []
    texts = captions(2 * count)
    for number in range(count):
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for name in names:
            blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((40, 40), Image.Resampling.NEAREST)
            picture.save(folder / "images" / f"{name}.png")
        lines.append(
            {
                "id": number,
                "image_0": names[0],
                "image_1": names[1],
                "caption_0": texts[2 * number],
                "caption_1": texts[2 * number + 1],
                "tag": "Relation",
                "secondary_tag": "",
                "num_main_preds": 1,
                "collapsed_tag": "Relation",
            }
        )
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def save_winoground_of(pairs: Path, folder: Path) -> Path:
    """Items of two pairs each, which a model that is trained on the pairs learns to tell apart."""
    content = json.loads((pairs / "captions.json").read_text())
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(len(content["images"]) // 2):
        line: dict[str, object] = {"id": number, "tag": "Relation", "collapsed_tag": "Relation"}
        for side in (0, 1):
            place = 2 * number + side
            shutil.copy(pairs / f"{place}.png", folder / "images" / f"{place}.png")
            line |= {
                f"image_{side}": str(place),
                f"caption_{side}": content["annotations"][place]["caption"],
            }
        lines.append(json.dumps(line) + "\n")
    (folder / "examples.jsonl").write_text("".join(lines))
    return folder


def add_ready(
    store: Store,
    config: WorkerConfig,
    files: Path,
    format: str,
    *,
    max_bad_share: float = 0.0,
    usable: int | None = None,
) -> str:
    """A data set that was uploaded and checked."""
    source = {"file": "a.tar", "max_bad_share": max_bad_share}
    dataset = store.datasets.add(format=format, source=source)
    folders = DatasetFolders(config.datasets_dir)
    with folders.claim(dataset.id) as claim:
        shutil.copytree(files, claim.folder / FILES)
        claim.publish()
    lease = claimed_check(store)
    assert lease.job_id == check_of(dataset.id)
    store.datasets.accept(lease, content_hash="0" * 64, counts={} if usable is None else {"usable": usable})
    return dataset.id
