import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from bench.weights import huggingface_config
from sds_clip.models.checkpoints.transformers_names import CLIP

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 100, "width": 32, "heads": 4, "layers": 2},
}


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_renamed_weights_embed_alike_in_hugging_face(quick_gelu: bool) -> None:
    torch.manual_seed(0)
    config = {**TINY, "quick_gelu": quick_gelu}
    ours = open_clip.CLIP(**config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs = CLIPModel(CLIPConfig(**huggingface_config(config))).eval()
    theirs.load_state_dict(CLIP.to_transformers(ours.state_dict()), strict=True)
    pixels = torch.randn(3, 3, 32, 32)
    tokens = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0, 0, 0, 0]])

    with torch.inference_mode():
        vision = theirs.visual_projection(theirs.vision_model(pixel_values=pixels).pooler_output)
        text = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)

        torch.testing.assert_close(vision, ours.encode_image(pixels), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text, ours.encode_text(tokens), atol=1e-5, rtol=1e-5)
