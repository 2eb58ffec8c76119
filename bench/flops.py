"""FLOPs and kept activations of a training step's parts, by `sds_clip.models.training.cost`.

`python -m bench.flops` prints the tables of docs/reproduce.md's estimates and of docs/how-to/gpu.md.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from torch import Tensor
from transformers import CLIPTextModel

from bench.rehearsal_weights import TEACHERS, make_configurations
from bench.train_parts import CONTEXT_LENGTH, new_unet, student_config, text_config
from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.student import trainable_parameters
from sds_clip.models.markdown import markdown_table
from sds_clip.models.teacher.folder import find_family, read_json
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.cost import (
    Cost,
    bytes_beside,
    count,
    count_parameters,
    denoiser_cost,
    operations,
    peak_bytes,
)

STUDENTS = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
BATCH, MICRO_BATCH, SDS_BATCH = 64, 16, 4


def main() -> None:
    print_parts()
    print()
    print_teachers()


def print_teachers() -> None:
    """Print what each teacher takes, and the peak in GiB of a step while its text encoders and VAE wait elsewhere.

    LayerNorms are trained: their gradients and moments are too small to count.
    """
    students = [student_cost(name) for name in STUDENTS]
    options = {"data": "captions.json", "teacher": "random", "steps": 1, "teacher_precision": "bfloat16"}
    options |= {"batch_size": BATCH, "micro_batch_size": MICRO_BATCH, "sds_batch_size": SDS_BATCH}
    rows = []
    for name in TEACHERS:
        if name == "tiny":
            continue
        with TemporaryDirectory() as temporary:
            folder = make_configurations(name, Path(temporary))
            family = find_family(folder, name)
            denoiser = denoiser_cost(folder, family)
            texts = bytes_beside(folder, family, torch.bfloat16, None)
            channels, side = family.latents(read_json(folder / family.denoiser / "config.json"))
        row = [name, 8 * side, denoiser.parameters / 1e9, texts / 2**30, denoiser.forward / 1e12]
        row += [denoiser.both / 1e12, denoiser.kept_bytes / 2**30]
        for student, architecture in zip(students, STUDENTS, strict=True):
            mapper = (student_config(architecture)["embed_dim"] + 1) * channels * side**2
            for gradient in ("sds", "full"):
                config = FinetuneConfig.model_validate({**options, "gradient": gradient})
                found = peak_bytes(config, student, denoiser, trained=0, other_bytes=0, mapper=mapper)
                row.append(found / 2**30)
        rows.append([f"{value:.1f}" if isinstance(value, float) else str(value) for value in row])
    header = (
        "teacher", "pixels", "B parameters", "text encoders GiB", "forward TFLOP", "and backward",
        "kept GiB a sample",
    )  # fmt: skip
    peaks = [f"{name}, {gradient}" for name in STUDENTS for gradient in ("sds", "full")]
    print(markdown_table((*header, *peaks), rows))


def print_parts() -> None:
    costs = [unet_cost("sd15"), text_encoder_cost("sd15"), *map(student_cost, STUDENTS)]
    rows = [
        [
            cost.name,
            f"{cost.parameters / 1e6:.1f}",
            f"{cost.forward / 1e9:.1f}",
            "" if not cost.both else f"{cost.both / 1e9:.1f}",
            "" if not cost.kept_bytes else f"{cost.kept_bytes / 2**20:.0f}",
        ]
        for cost in costs
    ]
    header = ("one sample", "M parameters", "forward GFLOP", "forward + backward GFLOP", "kept MiB")
    print(markdown_table(header, rows))


def unet_cost(name: str) -> Cost:
    """The frozen U-Net in bfloat16; its backward goes only to the latents."""
    unet = new_unet(name, "meta", torch.bfloat16)
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    timesteps = torch.zeros(1, dtype=torch.long, device="meta")
    captions = torch.empty(1, CONTEXT_LENGTH, width, dtype=torch.bfloat16, device="meta")

    def forward(with_graph: bool) -> Tensor:
        shape = (1, unet.config.in_channels, side, side)
        latents = torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=with_graph)
        output: Tensor = unet(latents, timesteps, captions, return_dict=False)[0]
        return output

    return count(f"U-Net {name}, latents of {side}x{side}, bfloat16", unet, forward)


def text_encoder_cost(name: str) -> Cost:
    """The teacher's text encoder, which needs no gradient."""
    with torch.device("meta"):
        encoder = CLIPTextModel(text_config(name)).eval()
    tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long, device="meta")
    return Cost(
        f"text encoder {name}", count_parameters(encoder), operations(lambda: encoder(input_ids=tokens))
    )


def student_cost(architecture: str) -> Cost:
    """Both towers in float32 with trainable LayerNorms."""
    with torch.device("meta"):
        network: Any = attend_batch_first(open_clip.CLIP(**student_config(architecture)))
        pixels = torch.empty(1, 3, *network.visual.image_size)
        tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long)
    trainable_parameters(network, "layernorm")

    def forward(with_graph: bool) -> Tensor:
        features: Tensor = network.encode_image(pixels) + network.encode_text(tokens)
        return features

    return count(f"{architecture}, an image and a caption, float32", network, forward)


if __name__ == "__main__":
    main()
