"""The configuration of a fine-tuning run: every choice of the method is a named option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import ConfigError
from models.score_error import SCORE_ERROR, ErrorOf

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Objective = Literal["clip", "sds-clip", "score"]


class TrainingOptions(BaseModel):
    """The options of the method: how a student is trained, whatever the model, the data and the machine.

    Defaults are common values: none was tuned, and none is taken from the paper. What was varied, in the demo world
    alone, is in docs/results.md.

    L = L_CLIP + sds_weight * L_SDS + negatives_weight * L_negatives
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    trainable: Literal["layernorm", "batchnorm", "all"] = "layernorm"
    """Which parameters of the student: LayerNorms (RMSNorms too), those and the image tower's BatchNorms, or all.
    Frozen ones keep every bit."""
    max_bad_share: Share = 0.0
    """The share of missing or unreadable samples that is left out; more of them stop the run."""

    steps: Count | None = None
    """How many steps; or `epochs`."""
    epochs: Positive | None = None
    """How often the data is gone through; or `steps`."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Of all processes together."""
    micro_batch_size: Count | None = None
    """How much of a process's part goes through the student at once; the negatives stay the full batch's."""
    sds_batch_size: Count | None = None
    """How many samples of a batch the teacher sees, evenly spread over it; all where it is not given."""
    lr: Positive = 1e-4
    """Peak learning rate of the student."""
    mapper_lr: Positive = 1e-3
    """Peak learning rate of the mapper."""
    weight_decay: NotNegative = 0.0
    """Of matrices; gains, biases, embeddings, tokens, position tables and the mapper never decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Steps of linear warm-up; then a cosine to zero."""
    max_gradient_norm: Positive = 1.0
    """To which the student's and the mapper's gradients are clipped, each by itself."""

    sds_weight: NotNegative = Field(1.0, validation_alias=AliasChoices("sds_weight", "lambda"))
    """The paper's lambda, for the mean over all elements of the latents."""
    gradient: Literal["full", "sds"] = "full"
    """Through the U-Net, or past it (DreamFusion)."""
    weighting: Literal["uniform", "one-minus-abar", "sqrt-abar", "min-snr"] = "uniform"
    """w(t): 1, 1 - abar, sqrt(abar) (1 - abar), or min(snr, gamma) / snr."""
    min_snr_gamma: Positive = 5.0
    """min-snr's gamma."""
    t_min: Share = 0.02
    """The lowest timestep that L_SDS draws, as a share of the teacher's."""
    t_max: Share = 0.98
    """The highest."""
    t_schedule: Literal["uniform", "annealed"] = "uniform"
    """`annealed` lowers the upper end from t_max to the middle of the range over the run."""
    guidance: Positive | None = None
    """Scale of classifier-free guidance; none where it is not given."""
    mapper_input: Literal["normalized", "raw"] = "normalized"
    """The image embedding on the unit sphere, or as it is."""
    mapper_start: Literal["random", "ridge"] = "random"
    """A fresh linear layer, or the closed-form fit to VAE latents of training images."""
    ridge: Positive = 1e-3
    """Strength of the fit's ridge."""
    ridge_images: Count = 4096
    """Images that the mapper is fitted to, drawn by the seed."""
    mapper_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which L_SDS trains the mapper alone, before it reaches the student."""

    negatives: Literal["none", "data", "swap"] = "none"
    """Hard negative captions: none, the data's own, or words swapped."""
    negatives_count: Count = 3
    """How many of them for each caption; of the data's own, the first."""
    negatives_seed: Seed = 0
    """Of the swaps and of the noise they are scored on; apart from `seed`, so that runs can share the scores."""
    negatives_loss: Literal["choice", "contrast"] = "choice"
    """`choice`: each image chooses among its caption and its negatives; `contrast`: NegCLIP's extra columns."""
    negatives_weight: NotNegative = 1.0
    """Their weight beside L_CLIP."""
    score_temperature: Positive = 0.003
    """The teacher's softmax temperature over denoising errors, chosen on the demo's teacher. Watch `target_own`, the
    own caption's probability, beside `target_chance`, what it is to a teacher that knows nothing."""
    score_draws: Count = 8
    """Noise levels that an image is scored on."""
    score_error: ErrorOf = SCORE_ERROR
    """Whose error is the score: the noise's, or the velocity's, which counts high noise for more."""
    score_t_min: Share = 0.3
    """Their range, from, as a share of the timesteps."""
    score_t_max: Share = 0.95
    """Their range, to."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the student's matrix products; weights, losses and normalisation are float32 always."""
    teacher_precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the U-Net's weights and products."""
    activation_checkpointing: bool = False
    """Of the U-Net, for `full` gradients in little memory."""
    log_every: Count = 25
    """Steps between log lines; each also costs a pass of the U-Net under shuffled captions."""
    save_every: Count = 200
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Checkpoints that are kept."""

    @property
    def teacher_batch_size(self) -> int:
        """Samples of a batch that the teacher sees, or that the control's negatives are drawn for."""
        return self.sds_batch_size or self.batch_size


class FinetuneConfig(TrainingOptions):
    """A whole run: what is trained, on what, against what, how and where."""

    base: str = "demo"
    """Reference of the model that is fine-tuned."""
    teacher: str | None = None
    """A diffusers folder, a hub id or `demo`; needed by the objectives `sds-clip` and `score`."""
    objective: Objective = "sds-clip"
    """`clip` is the control; `score` distils the teacher's choice among a caption and its hard negatives."""
    seed: Seed = 0
    """Of everything drawn at random."""

    data: Path
    """COCO captions, a CSV or TSV table, WebDataset shards (`{00000..00099}.tar`), or images with .txt files."""
    data_format: Literal["auto", "coco", "csv", "tsv", "webdataset", "folder"] = "auto"
    """The format of data and val; auto takes it from their names."""
    images: Path | None = None
    """Where the images of a COCO file or a table are; beside the file where it is not given."""
    image_key: str = "filepath"
    """The image column of a table."""
    caption_key: str = "title"
    """The caption column of a table."""
    separator: str | None = None
    """Of a table; by its ending where it is not given."""
    val: Path | None = None
    """Pairs of the same format, for the validation losses: the first 1,024 of them."""
    val_images: Path | None = None
    """Where the images of `val` are; those of `images` where it is not given."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; several processes get theirs from the launcher."""
    caption_cache: Path | None = None
    """A folder for the teacher's caption embeddings."""
    workers: Count = 2
    """Threads that decode images."""

    @model_validator(mode="after")
    def _belongs_together(self) -> FinetuneConfig:
        check_combination(self.objective, self.teacher, self)
        return self

    @property
    def uses_sds(self) -> bool:
        """Whether L_SDS and its mapper have a part in the run."""
        return self.objective == "sds-clip"

    @property
    def needs_vae(self) -> bool:
        """Whether the teacher must encode images."""
        return self.objective == "score" or (self.uses_sds and self.mapper_start == "ridge")


def check_combination(objective: Objective, teacher: str | None, options: TrainingOptions) -> None:
    """Raise ValueError for options that are valid one by one but not together."""
    if (options.steps is None) == (options.epochs is None):
        raise ValueError("give either steps or epochs")
    if objective != "clip" and teacher is None:
        raise ValueError(f"the objective {objective} needs a teacher; only `clip` does without")
    if objective == "score" and options.negatives == "none":
        raise ValueError("the objective score needs negatives: data or swap")
    if objective == "score" and options.negatives_loss != "choice":
        raise ValueError("the objective score needs negatives_loss: choice")
    if not options.t_min < options.t_max or not options.score_t_min < options.score_t_max:
        raise ValueError("t_min must be below t_max, and score_t_min below score_t_max")
    if options.teacher_batch_size > options.batch_size:
        raise ValueError(f"sds_batch_size {options.sds_batch_size} is above batch_size {options.batch_size}")


def parse_config(values: dict[str, object]) -> FinetuneConfig:
    """Validate a mapping of options.

    Raises ConfigError that names each wrong option and its allowed values.
    """
    try:
        return FinetuneConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error) from error


def config_error(error: ValidationError) -> ConfigError:
    problems = "; ".join(_problem(detail["loc"], detail["type"], detail["msg"]) for detail in error.errors())
    return ConfigError(f"The configuration cannot be used: {problems}.")


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        near = ", ".join(sorted(FinetuneConfig.model_fields))
        return f"there is no option {name}; the options are {near}"
    message = message.removeprefix("Value error, ")
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message
