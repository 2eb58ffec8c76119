"""The configuration of a fine-tuning run: every choice of the method is a named option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.choices import (
    SCORE_ERROR,
    DataFormat,
    ErrorOf,
    Gradient,
    MapperInput,
    Objective,
    Precision,
    Trainable,
    Weighting,
)
from models.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TrainingOptions(BaseModel):
    """The options of the method: how a student is trained, whatever the model, the data and the machine.

    Defaults are common values: none was tuned, and none is taken from the paper. What was varied, in the demo world
    alone, is in docs/results.md.

    L = L_CLIP + sds_weight * L_SDS + negatives_weight * L_negatives
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    trainable: Trainable = "layernorm"
    """Train these parameters of the student: the LayerNorms and RMSNorms (`layernorm`), these and the image tower's
    BatchNorms (`batchnorm`), or all. The others keep every bit."""
    max_bad_share: Share = 0.0
    """Leave out missing and unreadable samples up to this share of the data. More of them stop the run."""

    steps: Count | None = None
    """Take this many steps. Give either `steps` or `epochs`."""
    epochs: Positive | None = None
    """Go through the data this many times. Give either `steps` or `epochs`."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Train on this many samples in each step, over all processes together."""
    micro_batch_size: Count | None = None
    """Send at most this many samples of a process's part through the student at once. The loss still compares the
    whole batch. By default all go at once."""
    sds_batch_size: Count | None = None
    """Show the teacher this many samples of each batch, evenly spread over it. By default it sees all of them."""
    lr: Positive = 1e-4
    """Use this peak learning rate for the student."""
    mapper_lr: Positive = 1e-3
    """Use this peak learning rate for the mapper."""
    weight_decay: NotNegative = 0.0
    """Apply this weight decay to the student's matrices. Gains, biases, embeddings, tokens, position tables and the
    mapper never decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Raise the learning rate linearly over this many steps. It then falls to zero along a cosine."""
    max_gradient_norm: Positive = 1.0
    """Clip the gradients of the student and those of the mapper, each by themselves, to this norm."""

    sds_weight: NotNegative = Field(1.0, validation_alias=AliasChoices("sds_weight", "lambda"))
    """Weigh L_SDS, the mean over all elements of the latents, by this number, the paper's lambda."""
    gradient: Gradient = "full"
    """Take the gradient of L_SDS through the U-Net (`full`), or past it as DreamFusion does (`sds`)."""
    weighting: Weighting = "uniform"
    """Weigh the timesteps of L_SDS by w(t), which is 1, 1 - abar, sqrt(abar) (1 - abar), or min(snr, gamma) /
    snr."""
    min_snr_gamma: Positive = 5.0
    """Use this gamma in the weighting `min-snr`."""
    t_min: Share = 0.02
    """Let L_SDS draw timesteps from this share of the teacher's upwards."""
    t_max: Share = 0.98
    """Let L_SDS draw timesteps up to this share of the teacher's."""
    t_schedule: Literal["uniform", "annealed"] = "uniform"
    """Keep the range of the timesteps (`uniform`), or lower its upper end over the run, from t_max to the middle of
    the range (`annealed`)."""
    guidance: Positive | None = None
    """Apply classifier-free guidance of this scale to the teacher. By default there is none."""
    mapper_input: MapperInput = "normalized"
    """Give the mapper the image embedding on the unit sphere (`normalized`), or as it is (`raw`)."""
    mapper_start: Literal["random", "ridge"] = "random"
    """Start the mapper as a fresh linear layer (`random`), or as the closed-form fit to VAE latents of training
    images (`ridge`)."""
    ridge: Positive = 1e-3
    """Fit the mapper's ridge start with this penalty."""
    ridge_images: Count = 4096
    """Fit the mapper's ridge start to this many images, which are drawn by `seed`."""
    mapper_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Let L_SDS train the mapper alone for this many steps, before it reaches the student."""

    negatives: Literal["none", "data", "swap"] = "none"
    """Use no hard negative captions (`none`), the data's own (`data`), or the captions with words swapped
    (`swap`)."""
    negatives_count: Count = 3
    """Use at most this many hard negatives for each caption. Of the data's own, the first are taken."""
    negatives_seed: Seed = 0
    """Draw the swaps, and the noise that they are scored on, by this seed. It stands apart from `seed`, so that runs
    with other seeds can share the scores."""
    negatives_loss: Literal["choice", "contrast"] = "choice"
    """Let each image choose among its caption and its negatives (`choice`), or add the negatives to L_CLIP as
    further columns, as NegCLIP does (`contrast`)."""
    negatives_weight: NotNegative = 1.0
    """Weigh the loss `choice` by this number, beside L_CLIP. The loss `contrast` has no weight."""
    score_temperature: Positive = 0.003
    """Turn the teacher's denoising errors into probabilities by a softmax of this temperature. The default was
    chosen on the demo's teacher. Watch `target_own`, the own caption's probability, beside `target_chance`, what it
    is to a teacher that knows nothing."""
    score_draws: Count = 8
    """Score each image on this many noise levels."""
    score_error: ErrorOf = SCORE_ERROR
    """Take the error of the noise (`epsilon`) or of the velocity (`velocity`) as the score. The velocity's counts
    high noise for more."""
    score_t_min: Share = 0.3
    """Score images on noise levels from this share of the timesteps upwards."""
    score_t_max: Share = 0.95
    """Score images on noise levels up to this share of the timesteps."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute the student's matrix products in this format. Its weights, losses and normalisation are always
    float32."""
    teacher_precision: Precision = "auto"
    """Hold the U-Net's weights and compute its products in this format."""
    activation_checkpointing: bool = False
    """Compute the U-Net's activations again in the backward pass, so that `full` gradients need little memory."""
    log_every: Count = 25
    """Write a line to the log after every so many steps. With L_SDS, each line also costs a pass of the U-Net under
    shuffled captions."""
    save_every: Count = 200
    """Save a checkpoint after every so many steps."""
    keep_checkpoints: Count = 2
    """Keep this many checkpoints."""

    @property
    def teacher_batch_size(self) -> int:
        """Samples of a batch that the teacher sees, or that the control's negatives are drawn for."""
        return self.sds_batch_size or self.batch_size

    def steps_over(self, size: int) -> int:
        """Return the number of steps over `size` samples. An epoch leaves out a last batch that is not full."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * (size // self.batch_size)))


class FinetuneConfig(TrainingOptions):
    """A whole run: what is trained, on what, against what, how and where."""

    base: str = "demo"
    """Fine-tune the model of this reference."""
    teacher: str | None = None
    """Distil this teacher: a diffusers folder, a hub id or `demo`. The objectives `sds-clip` and `score` need
    one."""
    objective: Objective = "sds-clip"
    """Add L_SDS to L_CLIP (`sds-clip`), distil the teacher's choice among a caption and its hard negatives
    (`score`), or train on L_CLIP without a teacher, as the control does (`clip`)."""
    seed: Seed = 0
    """Draw everything that is random by this seed, apart from what `negatives_seed` draws."""

    data: Path
    """Train on these pairs: COCO captions, a CSV or TSV table, WebDataset shards (`{00000..00099}.tar`), or a folder
    of images with .txt files."""
    data_format: DataFormat = "auto"
    """Read `data` and `val` in this format. With `auto`, their names tell it."""
    images: Path | None = None
    """Look in this folder for the images of a COCO file or a table. By default they are beside the file."""
    image_key: str = "filepath"
    """Read the images' names from this column of a table."""
    caption_key: str = "title"
    """Read the captions from this column of a table."""
    separator: str | None = None
    """Split a table's columns at this character. By default it is a tab, or a comma in a .csv whose first line has
    no tab."""
    val: Path | None = None
    """Measure the validation losses on the first 1,024 of these pairs, whose format is that of `data`."""
    val_images: Path | None = None
    """Look in this folder for the images of `val`. By default `images` is used."""

    device: str = "auto"
    """Run on this device: auto, cpu, cuda or cuda:N. Several processes get theirs from the launcher."""
    caption_cache: Path | None = None
    """Keep the teacher's caption embeddings in this folder."""
    workers: Count = 2
    """Decode images in this many threads."""

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
    message = message.removeprefix("Value error, ").removesuffix(".")
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message
