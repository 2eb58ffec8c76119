"""The choices of the method by name, which options and the code that follows them share. Imports nothing heavy."""

from typing import Literal

Objective = Literal["clip", "sds-clip", "condition", "noise-contrast", "score"]
NOISE_CONTRAST_GROUP = 4
"""How many images contrast one another in the objective `noise-contrast` (decision 77)."""
Trainable = Literal["layernorm", "batchnorm", "all", "text-map", "lora"]
LoraTargets = Literal["attention", "mlp", "both"]
Gradient = Literal["full", "sds"]
Conflicts = Literal["keep", "project"]
Weighting = Literal["uniform", "one-minus-abar", "sqrt-abar", "min-snr"]
MapperInput = Literal["normalized", "raw"]
DataFormat = Literal[
    "auto", "coco", "csv", "tsv", "webdataset", "parquet", "datasets", "imagefolder", "folder"
]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
DECODINGS = {"full": 1, "scaled": 2}
"""How large JPEGs are decoded (decision 93), and the number by which a file of embeddings says so. Another way from a
file to pixels is another number."""

ScoreBy = Literal["teacher", "shuffled", "base", "labels"]
ScoreLabels = Literal["soft", "hard"]
NegativeKind = Literal["swap", "move", "replace", "shuffle"]
ScoreCandidates = Literal["all", "negatives"]

ErrorOf = Literal["epsilon", "velocity"]
"""Which error a diffusion score is: that of the noise or of the velocity."""
SCORE_ERROR: ErrorOf = "velocity"
"""The default, in training and in evaluation alike (decision 25)."""

ExportFormat = Literal["open_clip", "transformers", "onnx", "peft"]
"""The layouts in which `sds_clip.models.export.write` writes a checkpoint."""

LabelSet = Literal["imagenet"]
TemplateSet = Literal["simple", "openai"]
"""The named sets of zero-shot classification, whose texts are in `sds_clip.models.clip.zero_shot`."""
