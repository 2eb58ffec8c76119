"""Write a checkpoint as transformers' CLIPModel or SiglipModel, with its image processor and tokenizer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)
from transformers.utils import logging

from sds_clip.models.checkpoints.model_config import size_pair
from sds_clip.models.checkpoints.sources import Source
from sds_clip.models.checkpoints.transformers_clip import INTERPOLATIONS
from sds_clip.models.checkpoints.transformers_names import CLIP, SIGLIP, Names
from sds_clip.models.clip.lora import layers
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.version import effective_model_config
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import Agreement, agreement
from sds_clip.models.export.tokenizer import transformers_tokenizer

# What may be said in open_clip's configuration of a tower, because transformers' model has it too.
_TOWER = {"width", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"}
_TEXT = _TOWER | {"context_length", "vocab_size", "heads", "pad_id", "eos_id", "tokenizer_kwargs"}


@dataclass(frozen=True)
class _Kind:
    """One of transformers' two models."""

    model: type[CLIPModel] | type[SiglipModel]
    names: Names
    known: Mapping[str, set[str]]
    """The options of each tower that it has."""
    fixed: Mapping[str, Mapping[str, Any]]
    """The values that some of them must have."""


_CLIP = _Kind(
    CLIPModel,
    CLIP,
    {"vision_cfg": _TOWER | {"image_size", "patch_size", "head_width"}, "text_cfg": _TEXT},
    {},
)
_SIGLIP = _Kind(
    SiglipModel,
    SIGLIP,
    {
        "vision_cfg": {"image_size", "timm_model_name", "timm_pool", "timm_proj"},
        "text_cfg": _TEXT | {"no_causal_mask", "proj_bias", "pool_type"},
    },
    {
        "vision_cfg": {"timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers draw no bars, nor warn of SigLIP's default configuration, which contradicts itself."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


@_quiet()
def write_transformers(folder: Path, clip: Clip, source: Source) -> Agreement:
    """Write a float32 checkpoint into an existing folder, load it with transformers, and compare the embeddings.

    Raises CheckpointError if transformers has no such model, or gives other embeddings.
    """
    kind = _kind_of(clip, source)
    processor = _image_processor(clip, source)
    config = _config(kind, clip, source)
    config.architectures, config.dtype = [kind.model.__name__], torch.float32
    save_file(_weights(kind, config, clip), folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    transformers_tokenizer(clip, source.model_config["text_cfg"]).save_pretrained(folder)
    return agreement(clip, *_encoders(folder))


def _kind_of(clip: Clip, source: Source) -> _Kind:
    """Choose the model by the image tower. Raises CheckpointError if it lacks anything that the checkpoint has."""
    config = effective_model_config(source.model_config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config:
        raise _refused(clip, "it is a CoCa, which also writes captions")
    if "hf_model_name" in text:
        raise _refused(clip, f"its text tower is {text['hf_model_name']}")
    if isinstance(vision.get("layers"), list):
        raise _refused(clip, "its image tower is a ResNet")
    kind = _SIGLIP if "timm_model_name" in vision else _CLIP
    name = kind.model.__name__
    for tower, known in kind.known.items():
        options, fixed = config[tower], kind.fixed.get(tower, {})
        for option in options.keys() - known:
            raise _refused(clip, f"it has {tower}.{option} {options[option]!r}, which {name} does not have")
        for option, needed in fixed.items():
            if options.get(option) != needed:
                stated = options.get(option)
                raise _refused(
                    clip, f"{name} needs {tower}.{option} {needed!r}, and this model has {stated!r}"
                )
    if (clip.logit_bias is None) is (kind is _SIGLIP):
        lacks, has = ("no logit bias", "one") if clip.logit_bias is None else ("a logit bias", "none")
        raise _refused(clip, f"it has {lacks}, and {name} has {has}")
    if clip.image_size[0] != clip.image_size[1]:
        raise _refused(clip, f"its images are not square, and those of {name} are")
    return kind


def layer_names(clip: Clip, source: Source) -> dict[str, list[str]]:
    """Return what transformers calls each linear layer of the towers' blocks, or its parts.

    Raises CheckpointError if transformers has no such model.
    """
    kind = _kind_of(clip, source)
    _weights(kind, _config(kind, clip, source), clip)
    found: dict[str, list[str]] = {}
    for name, layer in layers(clip.network):
        weight = layer.weight.removeprefix("text.") if kind is _CLIP else layer.weight
        theirs = kind.names.to_transformers({weight: torch.empty(layer.parts)})
        found[name] = [each.removesuffix(".weight") for each in theirs]
    return found


def _refused(clip: Clip, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{clip.reference} ({clip.architecture}) cannot be exported to transformers: {reason}. Export it with --format "
        "onnx or open_clip."
    )


def _weights(kind: _Kind, config: Any, clip: Clip) -> dict[str, Tensor]:
    """Return the weights in float32 under transformers' names, in its shapes."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in kind.model(config).state_dict().items()}
    state = {
        name.removeprefix("text.") if kind is _CLIP else name: value
        for name, value in clip.network.state_dict().items()
    }
    named = kind.names.to_transformers(state)
    if others := sorted(named.keys() ^ expected.keys()):
        whose = "does not have" if others[0] in named else "needs and this model does not have"
        raise _refused(clip, f"there is a tensor {others[0]}, which {kind.model.__name__} {whose}")
    for name, value in named.items():
        if value.squeeze().shape != torch.Size(size for size in expected[name] if size != 1):
            shapes = f"{list(value.shape)}, and {kind.model.__name__} needs {list(expected[name])}"
            raise _refused(clip, f"its tensor {name} has shape {shapes}")
    return {
        name: value.float().reshape(expected[name]).clone(memory_format=torch.contiguous_format)
        for name, value in named.items()
    }


def _config(kind: _Kind, clip: Clip, source: Source) -> Any:
    text = CLIPTextCfg(**source.model_config["text_cfg"])
    # open_clip reads the feature at the largest token of the vocabulary, which is thus stated as the end of text.
    vocabulary = {
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "eos_token_id": text.vocab_size - 1,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    if kind is _CLIP:
        vision = CLIPVisionCfg(**source.model_config["vision_cfg"])
        of_images = _tower(clip, vision, vision.width // vision.head_width)
        of_images |= {"image_size": clip.image_size[0], "patch_size": vision.patch_size}
        of_texts = _tower(clip, text, text.heads) | vocabulary
        return CLIPConfig(vision_config=of_images, text_config=of_texts, projection_dim=clip.embed_dim)
    network: Any = clip.network
    trunk = network.visual.trunk
    block = trunk.blocks[0]
    of_images = {
        "hidden_size": trunk.embed_dim,
        "intermediate_size": block.mlp.fc1.out_features,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": clip.image_size[0],
        "patch_size": size_pair(trunk.patch_embed.patch_size)[0],
        "hidden_act": _activation_of(block.mlp.act),
        "layer_norm_eps": block.norm1.eps,
    }
    of_texts = _tower(clip, text, text.heads) | vocabulary
    of_texts["projection_size"] = of_texts.pop("projection_dim")
    of_texts["hidden_act"] = _activation_of(network.text.transformer.resblocks[0].mlp.gelu)
    of_texts["layer_norm_eps"] = network.text.ln_final.eps
    return SiglipConfig(vision_config=of_images, text_config=of_texts)


def _tower(clip: Clip, cfg: CLIPVisionCfg | CLIPTextCfg, heads: int) -> dict[str, Any]:
    """Return the configuration of a tower of open_clip's own."""
    return {
        "hidden_size": cfg.width,
        "intermediate_size": int(cfg.width * cfg.mlp_ratio),
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": heads,
        "projection_dim": clip.embed_dim,
        "hidden_act": "quick_gelu"
        if clip.quick_gelu
        else _gelu((cfg.act_kwargs or {}).get("approximate", "none")),
        "layer_norm_eps": (cfg.norm_kwargs or {}).get("eps", 1e-5),
    }


def _activation_of(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return _gelu(module.approximate)
    return "quick_gelu" if type(module).__name__ == "QuickGELU" else type(module).__name__


def _gelu(approximate: str) -> str:
    return {"none": "gelu", "tanh": "gelu_pytorch_tanh"}[approximate]


def _image_processor(clip: Clip, source: Source) -> Any:
    """Return transformers' form of the preprocessing.

    Raises CheckpointError for `longest`, which transformers does not have.
    """
    preprocess, size = source.preprocess, clip.image_size[0]
    names = {name: number for number, name in INTERPOLATIONS.items()} | {
        "random": 3
    }  # open_clip's choice then
    stated = {
        "image_mean": list(preprocess["mean"]),
        "image_std": list(preprocess["std"]),
        "resample": names[preprocess["interpolation"]],
        # transformers would put what is transparent on white. Its users convert images, as the card says.
        "do_convert_rgb": False,
    }
    square = {"height": size, "width": size}
    match preprocess["resize_mode"]:
        case "shortest":
            return CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square, **stated)
        case "squash":
            return SiglipImageProcessor(size=square, **stated)
        case mode:
            raise _refused(
                clip, f"its images are resized by {mode}, which transformers' processors cannot do"
            )


def _encoders(folder: Path) -> tuple[Callable[[list[Image.Image]], Tensor], Callable[[list[str]], Tensor]]:
    """Load a folder as its users will, and return how it encodes images and texts."""
    model, loaded = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    if wrong := [name for names in loaded.values() for name in names]:
        raise CheckpointError(f"transformers did not load all of what was written: {wrong[0]}.")
    # The default, Torchvision, rounds otherwise when it resizes.
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    model.eval()

    @torch.inference_mode()
    def image_features(images: list[Image.Image]) -> Tensor:
        converted = [image.convert("RGB") for image in images]
        features: Tensor = model.get_image_features(
            **processor(images=converted, return_tensors="pt")
        ).pooler_output
        return features

    @torch.inference_mode()
    def text_features(texts: list[str]) -> Tensor:
        tokens = processor(text=texts, padding="max_length", truncation=True, return_tensors="pt")
        features: Tensor = model.get_text_features(**tokens).pooler_output
        return features

    return image_features, text_features
