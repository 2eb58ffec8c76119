"""What a model card says of each format."""

from sds_clip.models.choices import ExportFormat

LIBRARIES: dict[ExportFormat, str] = {
    "open_clip": "open_clip",
    "transformers": "transformers",
    "onnx": "onnx",
}
_CLIP = "A CLIP: it maps images and texts to embeddings, whose cosine says how well they fit."

WHAT_IT_IS: dict[ExportFormat, str] = {
    "open_clip": f"{_CLIP} SDS-CLIP wrote this folder in open_clip's layout.",
    "transformers": f"{_CLIP} SDS-CLIP wrote this folder in the layout of transformers. All weights are float32.",
    "onnx": f"""\
{_CLIP} SDS-CLIP wrote this folder for runtimes of ONNX.

- `image.onnx` maps `pixels`, float32 [batch, 3, height, width], to `image_features`.
- `text.onnx` maps `tokens`, int64 [batch, context], to `text_features`.
- The batch may have any size. The features are L2-normalised.
- `open_clip_config.json` has the preprocessing, the logit scale and the logit bias.""",
}

_IMAGES = 'images = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in files]'

LOADING: dict[ExportFormat, str] = {
    "open_clip": f"""\
```python
import open_clip, torch
from PIL import Image, ImageOps

model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
model.eval()
{_IMAGES}
with torch.inference_mode():
    image_features = model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
    text_features = model.encode_text(tokenizer(texts), normalize=True)
```""",
    "transformers": f"""\
```python
import torch
from PIL import Image, ImageOps
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("FOLDER").eval()
processor = AutoProcessor.from_pretrained("FOLDER", backend="pil")
{_IMAGES}
inputs = processor(text=texts, images=images, padding="max_length", truncation=True, return_tensors="pt")
with torch.inference_mode():
    outputs = model(**inputs)
image_features, text_features = outputs.image_embeds, outputs.text_embeds
```""",
    "onnx": f"""\
```python
import json

import numpy, onnxruntime, tokenizers
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps

with open("FOLDER/open_clip_config.json") as file:
    config = json.load(file)
size = config["model_cfg"]["vision_cfg"]["image_size"]
preprocess = image_transform_v2(PreprocessCfg(size=size, **config["preprocess_cfg"]), is_train=False)
{_IMAGES}
pixels = numpy.stack([preprocess(image).numpy() for image in images])
image = onnxruntime.InferenceSession("FOLDER/image.onnx")
image_features = image.run(None, {{"pixels": pixels}})[0]

tokens = tokenizers.Tokenizer.from_file("FOLDER/tokenizer.json").encode_batch(texts)
text = onnxruntime.InferenceSession("FOLDER/text.onnx")
text_features = text.run(None, {{"tokens": numpy.array([each.ids for each in tokens])}})[0]
```""",
}

_BAG_OF_WORDS = (
    "- A CLIP reads a text much like a bag of words. Measure it on your own data before you rely on it."
)
_PICTURES = """\
- Keep `.convert("RGB")`: libraries treat transparency, palettes and grey images in different ways. Transparency is
  left out, so a transparent pixel has the colour that is stored for it.
- Pillow turns most of a 16-bit grey image white. SDS-CLIP keeps the high byte of each pixel, as
  `Image.fromarray((numpy.asarray(image) >> 8).astype("uint8"))` does."""
_TEXTS = """\
- open_clip also repairs texts whose encoding is broken, and HTML entities such as `&amp;`. The tokenizer here does
  not, so such texts get other embeddings."""

LIMITS: dict[ExportFormat, str] = {
    "open_clip": f"""\
{_BAG_OF_WORDS}
- Use the float32 weights as they are. bfloat16 rounds small changes of LayerNorms away.
{_PICTURES}""",
    "transformers": f"""\
{_BAG_OF_WORDS}
- Keep `backend="pil"`: the pixels are then equal to those of the original. The default, Torchvision, rounds
  otherwise when it resizes.
{_PICTURES}
- If an image is cropped by an odd number of pixels, transformers may crop one pixel beside the original.
- Texts must be padded to the whole context, as above.
{_TEXTS}""",
    "onnx": f"""\
{_BAG_OF_WORDS}
- The files begin at pixels and tokens. Without open_clip, resize, crop and normalise images as
  `open_clip_config.json` says.
{_PICTURES}
{_TEXTS}""",
}
