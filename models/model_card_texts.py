"""What a model card says of each format."""

from models.choices import ExportFormat

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

LOADING: dict[ExportFormat, str] = {
    "open_clip": """\
```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
```""",
    "transformers": """\
```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("FOLDER").eval()
processor = AutoProcessor.from_pretrained("FOLDER", backend="pil")
inputs = processor(text=texts, images=images, padding="max_length", truncation=True, return_tensors="pt")
```""",
    "onnx": """\
```python
import numpy, onnxruntime, tokenizers

tokens = tokenizers.Tokenizer.from_file("FOLDER/tokenizer.json").encode_batch(texts)
text = onnxruntime.InferenceSession("FOLDER/text.onnx")
features = text.run(None, {"tokens": numpy.array([each.ids for each in tokens])})[0]
```""",
}

_TEXTS = """\
- open_clip also repairs texts whose encoding is broken, and HTML entities such as `&amp;`. The tokenizer here does
  not, so such texts get other embeddings."""

LIMITS: dict[ExportFormat, str] = {
    "open_clip": """\
- A CLIP reads a text much like a bag of words. Measure it on your own data before you rely on it.
- Use the float32 weights as they are. bfloat16 rounds small changes of LayerNorms away.""",
    "transformers": f"""\
- A CLIP reads a text much like a bag of words. Measure it on your own data before you rely on it.
- Keep `backend="pil"`: the pixels are then equal to those of the original. The default, Torchvision, rounds
  otherwise when it resizes.
- If an image is cropped by an odd number of pixels, transformers may crop one pixel beside the original.
- Texts must be padded to the whole context, as above.
{_TEXTS}""",
    "onnx": f"""\
- A CLIP reads a text much like a bag of words. Measure it on your own data before you rely on it.
- The files begin at pixels and tokens. Resize, crop and normalise images as `open_clip_config.json` says.
{_TEXTS}""",
}
