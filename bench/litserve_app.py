"""A LitServe app around open_clip with batching, run in the peer's own environment.

`python litserve_app.py FOLDER PRECISION PORT`, where PRECISION is open_clip's: fp32 or bf16.
"""

import base64
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import litserve
import open_clip
import torch
from PIL import Image

THREADS = int(os.environ["OMP_NUM_THREADS"])


class EmbedAPI(litserve.LitAPI):  # type: ignore[misc]
    """One image in, its L2-normalised embedding out; a batch's images are decoded in parallel."""

    def __init__(self, folder: str, precision: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder, self.clip_precision = folder, precision

    def setup(self, device: str) -> None:
        torch.set_num_threads(THREADS)
        self.pool = ThreadPoolExecutor(THREADS)
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{self.folder}", precision=self.clip_precision, device=device
        )
        self.clip.eval()
        self.dtype = open_clip.get_input_dtype(self.clip_precision)

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the image's data URI; `batch` decodes it in a thread."""
        return request["image"]

    def batch(self, inputs: list[str]) -> torch.Tensor:
        """Decode and preprocess: [b, 3, h, w]."""
        return torch.stack(list(self.pool.map(self._pixels, inputs)))

    def predict(self, pixels: torch.Tensor) -> list[list[float]]:
        with torch.inference_mode():
            features = self.clip.encode_image(pixels.to(self.dtype)).float()
        rows: list[list[float]] = torch.nn.functional.normalize(features, dim=-1).tolist()
        return rows

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"embedding": output}

    def _pixels(self, uri: str) -> torch.Tensor:
        image = Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))
        pixels: torch.Tensor = self.preprocess(image)
        return pixels


def main() -> None:
    folder, precision, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    api = EmbedAPI(folder, precision, max_batch_size=32, batch_timeout=0.01, api_path="/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
