"""infinity-emb's own offline call over a folder of JPEGs, run in the peer's own environment.

`python infinity_folder.py MODEL FOLDER BATCH_SIZE OUT` writes the embeddings as an array, and prints how many seconds
it took from the folder to the written file, with the model loaded.
"""

import sys
import time
from pathlib import Path

import numpy as np
from infinity_emb import EngineArgs, SyncEngineArray


def main() -> None:
    model, folder, batch_size, out = sys.argv[1:]
    options = EngineArgs(
        model_name_or_path=model,
        served_model_name="clip",
        engine="torch",
        device="cpu",
        dtype="float32",
        batch_size=int(batch_size),
        bettertransformer=False,
    )
    engines = SyncEngineArray.from_args([options])

    def embed(paths: list[Path]) -> np.ndarray:
        rows, _ = engines.image_embed(model="clip", images=[path.read_bytes() for path in paths]).result()
        return np.stack(rows)

    embed([min(Path(folder).iterdir())] * int(batch_size))
    start = time.perf_counter()
    np.save(out, embed(sorted(Path(folder).iterdir())))
    print(time.perf_counter() - start)
    engines.stop()


if __name__ == "__main__":
    main()
