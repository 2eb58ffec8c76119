"""Write a checkpoint as two ONNX files, one for each tower, from preprocessed pixels and tokens to embeddings."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from sds_clip.models.checkpoints.sources import Source, write_config
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.export.check import Agreement, agreement
from sds_clip.models.export.tokenizer import write_tokenizer_json

INPUTS = {"image": "pixels", "text": "tokens"}
_LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one ONNX file, which is a protobuf; larger ones are written beside it."""


class Tower(nn.Module):
    """One tower of a CLIP, with the normalisation of its embeddings."""

    def __init__(self, network: nn.Module, tower: Literal["image", "text"]) -> None:
        super().__init__()
        self.network = network
        clip: Any = network
        self.encode = clip.encode_image if tower == "image" else clip.encode_text

    def forward(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.encode(inputs, normalize=False), dim=-1)


def write_onnx(folder: Path, clip: Clip, source: Source) -> Agreement:
    """Write a float32 checkpoint into an existing folder, run it by onnxruntime, and compare the embeddings.

    image.onnx maps pixels [batch, 3, height, width] to image_features [batch, d], and text.onnx maps int64 tokens
    [batch, context] to text_features [batch, d], both L2-normalised. Beside them are open_clip's configuration, with
    the logit scale and bias, and a tokenizer.json that pads.

    Raises CheckpointError if torch cannot export a tower, or what was written gives other embeddings.
    """
    write_tokenizer_json(folder, clip, source.model_config["text_cfg"])
    pixels = torch.zeros(2, 3, *clip.image_size)
    _write_tower(folder, clip, "image", pixels)
    _write_tower(folder, clip, "text", clip.tokenizer(["a dog", "two dogs"]))
    write_config(folder, source, {"logit_scale": clip.logit_scale, "logit_bias": clip.logit_bias})
    return _agreement(folder, clip)


def _write_tower(folder: Path, clip: Clip, tower: Literal["image", "text"], inputs: Tensor) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own code
            program = torch.onnx.export(
                Tower(clip.network, tower).eval(),
                (inputs,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUTS[tower]],
                output_names=[f"{tower}_features"],
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        raise CheckpointError(
            f"{clip.reference} ({clip.architecture}) cannot be exported to ONNX: torch cannot export its {tower} tower "
            f"({type(error).__name__}: {first_line(error)}). Export it with --format open_clip."
        ) from error
    assert program is not None
    program.save(str(folder / f"{tower}.onnx"), external_data=clip.size_bytes > _LARGEST)


def _agreement(folder: Path, clip: Clip) -> Agreement:
    import onnxruntime  # of the extra `onnx`

    image, text = (onnxruntime.InferenceSession(str(folder / f"{tower}.onnx")) for tower in INPUTS)
    tokenizer = FastTokenizer.from_file(str(folder / "tokenizer.json"))

    def image_features(images: list[Image.Image]) -> Tensor:
        pixels = torch.stack([clip.preprocess(each.convert("RGB")) for each in images])
        return torch.from_numpy(image.run(None, {INPUTS["image"]: pixels.numpy()})[0])

    def text_features(texts: list[str]) -> Tensor:
        tokens = torch.tensor([encoded.ids for encoded in tokenizer.encode_batch(texts)])
        return torch.from_numpy(text.run(None, {INPUTS["text"]: tokens.numpy()})[0])

    return agreement(clip, image_features, text_features)
