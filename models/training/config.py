"""The configuration of a fine-tuning run: every choice of the method is a named option."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from sds_clip.models.choices import (
    NOISE_CONTRAST_GROUP,
    SCORE_ERROR,
    Conflicts,
    DataFormat,
    ErrorOf,
    Gradient,
    LoraTargets,
    MapperInput,
    NegativeKind,
    Objective,
    Precision,
    ScoreBy,
    ScoreCandidates,
    ScoreLabels,
    Trainable,
    Weighting,
)
from sds_clip.models.errors import ConfigError
from sds_clip.models.validation import explain

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_NUMBER = TypeAdapter[float](NotNegative)
_SHARE = TypeAdapter[float](Annotated[float, Field(gt=0, le=1)])
Weight = Annotated[
    NotNegative | Literal["auto"],
    # A union would report what is wrong once for each of its branches.
    BeforeValidator(lambda value: value if value == "auto" else _NUMBER.validate_python(value)),
]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Alpha = Annotated[
    Annotated[float, Field(gt=0, le=1)] | Literal["auto"],
    BeforeValidator(lambda value: value if value == "auto" else _SHARE.validate_python(value)),
]
_MOST_ALPHA = 1e6

_SECTIONS = {
    "trainable": "Model",
    "max_bad_share": "Data",
    "steps": "Length and batches",
    "lr": "Optimizer",
    "sds_weight": "The teacher's loss",
    "negatives": "Hard negatives and the objective score",
    "precision": "Machine and files",
    "base": "Model",
    "data": "Data",
    "device": "Machine and files",
}
"""The options that start a section, where options are shown to people: a section goes on until the next one starts."""


BY_CONDITION: tuple[Objective, ...] = ("condition", "noise-contrast")
"""The objectives in which the image's features take the place of the caption."""


def meant_before(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a run of an earlier release did not record, where it did not do what is the default today."""
    return {"negatives_balance": False} if _are_made(options.get("negatives", "none")) else {}


def _are_made(negatives: str) -> bool:
    return negatives not in ("none", "data")


class TrainingOptions(BaseModel):
    """The options of the method: how a student is trained, independent of the model, the data and the machine.

    Defaults are common values, and none is taken from the paper. Where L_SDS starts and which timesteps it draws was
    chosen in the demo world, so that the teacher has a say there. docs/experiments shows what was varied.

    L = L_CLIP + sds_weight * L_teacher + negatives_weight * L_negatives + the other terms by their weights

    L_teacher is L_SDS, L_condition or L_noise, by the objective. Other terms are off unless they have a weight.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    trainable: Trainable = "layernorm"
    """Train these parameters of the student: the LayerNorms and RMSNorms (`layernorm`), these and the image tower's
    BatchNorms (`batchnorm`), or all. The other parameters do not change. `text-map` trains one matrix after the text
    tower, which begins as the identity and is then folded into the text projection: image embeddings stay valid.
    `lora` trains the product of two narrow matrices beside the weights of both towers' layers."""
    lora_rank: Count = 4
    """Give the matrices of `lora` this many rows and columns. It is at most the width of the layers."""
    lora_alpha: Positive | None = None
    """Multiply the product of `lora` by alpha / rank. By default, alpha is the rank."""
    lora_targets: LoraTargets = "attention"
    """Put the matrices of `lora` beside these layers: queries, keys, values and outputs of `attention`, both layers of
    each `mlp`, or `both`."""
    max_bad_share: Share = 0.0
    """Leave out missing and unreadable samples, up to this share of the data. If there are more, the run stops."""

    steps: Count | None = None
    """Take this many steps. Give either `steps` or `epochs`."""
    epochs: Positive | None = None
    """Go through the data this many times. Give either `steps` or `epochs`."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Train on this many samples in each step, over all processes together."""
    micro_batch_size: Count | None = None
    """Encode at most this many samples at once in each process. The loss still compares the whole batch. By default a
    process encodes its whole part of the batch at once."""
    sds_batch_size: Count | None = None
    """Show the teacher this many samples of each batch, spread evenly over it. By default it sees all of them. With the
    objective `noise-contrast`, it is a multiple of 4, and the teacher sees each sample four times."""
    lr: Positive = 1e-4
    """Use this peak learning rate for the student."""
    mapper_lr: Positive = 1e-3
    """Use this peak learning rate for the mapper."""
    weight_decay: NotNegative = 0.0
    """Apply this weight decay to the student's matrices, those of `lora` among them. Gains, biases, embeddings, tokens,
    position embeddings, the mapper and the text map never decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Raise the learning rate linearly over this many steps. It then falls to zero along a cosine."""
    max_gradient_norm: Positive = 1.0
    """Clip the norm of the student's gradients, and separately that of the mapper's, to this value."""
    alpha: Alpha = 1.0
    """Keep weights that are this share of the way from the base to the trained ones, as WiSE-FT does, so that less is
    forgotten. With `auto`, it is the one of 0.25, 0.5, 0.75 and 1 with the least contrastive loss on the validation
    pairs."""

    sds_weight: Weight | None = Field(None, validation_alias=AliasChoices("sds_weight", "lambda"))
    """Multiply the teacher's loss by this number, which is the paper's lambda. By default, it is 1 for L_SDS and
    L_noise, and 200 for L_condition, whose gradient is smaller. With `auto`, it is the geometric mean, over the first
    `warmup_steps` that reach the student, of the weight by which the teacher's gradient on the image features is as
    large as that of the other losses."""
    conflicts: Conflicts = "keep"
    """Add the gradients of both losses on the image features as they are (`keep`). Or, where the teacher's points
    against that of the other losses, first take away its part along that one (`project`), as PCGrad does."""
    gradient: Gradient = "full"
    """Differentiate L_SDS through the denoiser (`full`), or leave out its Jacobian as DreamFusion does
    (`sds`). L_condition and L_noise are always differentiated through it."""
    weighting: Weighting = "uniform"
    """Weight each timestep of the teacher's loss by w(t). In the order of the choices, w(t) is 1, 1 - abar,
    sqrt(abar) (1 - abar), and min(snr, gamma) / snr. For a flow, abar is (1 - sigma)^2, and 1 - abar is sigma^2."""
    min_snr_gamma: Positive = 5.0
    """Use this gamma for the weighting `min-snr`."""
    t_min: Share = 0.6
    """The lowest timestep that the teacher's loss draws, as a fraction of the teacher's timesteps. At high noise, a
    teacher decides what is where."""
    t_max: Share = 0.95
    """The highest timestep that the teacher's loss draws, as a fraction of the teacher's timesteps."""
    t_schedule: Literal["uniform", "annealed"] = "uniform"
    """Keep the range of the timesteps (`uniform`), or lower its upper end during the run, from `t_max` to the middle of
    the range (`annealed`)."""
    guidance: Positive | None = None
    """Apply classifier-free guidance of this scale to the teacher. By default there is none. A FLUX.1-dev has the scale
    as an input, 1 by default."""
    mapper_input: MapperInput = "normalized"
    """Give the mapper the image embedding on the unit sphere (`normalized`), or as it is (`raw`)."""
    mapper_start: Literal["random", "ridge"] = "ridge"
    """Start the mapper of L_SDS as the closed-form fit to VAE latents of training images (`ridge`), or as a fresh
    linear layer (`random`). That of L_condition and of L_noise always starts as a fresh one."""
    ridge: Positive = 1e-3
    """Use this penalty for the ridge regression, if `mapper_start` is ridge."""
    ridge_images: Count = 4096
    """Fit the ridge regression to this many images, which `seed` chooses, if `mapper_start` is ridge."""
    mapper_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Let the teacher's loss train only the mapper for this many steps. After that it trains the student too. L_CLIP
    trains the student from the first step."""
    condition_tokens: Count = 8
    """Turn the image embedding into this many tokens of a caption, if the objective is `condition` or
    `noise-contrast`."""

    negatives: Literal["none", "data", "made", NegativeKind] = "none"
    """Use no hard negative captions (`none`), the data's own (`data`), or the captions with words swapped (`swap`),
    an attribute given to another noun (`move`), words replaced by others of a list (`replace`), or groups of words in
    another order (`shuffle`). `made` takes these four in turns."""
    negatives_balance: bool | None = None
    """Leave out negatives that a reader tells by the words alone, as the data's captions have them. By default, this
    is done for negatives that are made, and not for the data's own."""
    negatives_count: Count = 3
    """Use at most this many hard negatives for each caption. If the data has more, the first ones are used."""
    negatives_seed: Seed = 0
    """Use this seed for the negatives that are made and for the noise with which they are scored. It is separate from
    `seed`, so that runs with different seeds can share the scores."""
    negatives_loss: Literal["choice", "contrast"] = "choice"
    """Use the hard negatives in one of two ways. `choice` adds a loss of its own, the cross-entropy of each image
    over its caption and that caption's negatives. `contrast` adds the negatives to the texts of L_CLIP, as NegCLIP
    does."""
    negatives_weight: NotNegative = 1.0
    """Multiply the loss of `negatives_loss` choice by this number. contrast has no weight."""
    negatives_focal_gamma: NotNegative = 0.0
    """Weight each candidate of the choice by (1 - q)^gamma, q being its probability, as FSC-CLIP does with 2."""
    negatives_label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Give this share of the right caption's label to all candidates of the choice alike, as FSC-CLIP does with
    0.02."""
    intra_modal_weight: NotNegative = 0.0
    """Multiply CE-CLIP's intra-modal contrast by this number: an image and its caption against that caption and each of
    its hard negatives."""
    rank_weight: NotNegative = 0.0
    """Multiply CE-CLIP's ranking loss by this number: the caption's logit must be ahead of each hard negative's by a
    threshold. For each kind of negative, that is the mean distance in the step before, and 0 in the first."""
    rank_max_threshold: Positive = 10.0
    """Let no threshold of the ranking loss be larger."""
    paraphrase_weight: NotNegative = 0.0
    """Multiply READ-CLIP's alignment by this number: a contrast of two captions of each image over the batch. Images
    with one caption have no part in it."""
    feature_distillation_weight: NotNegative = 0.0
    """Multiply the squared distance of the features to those of the base by this number, against forgetting."""
    similarity_distillation_weight: NotNegative = 0.0
    """Multiply the KL divergence of the base's similarities over the batch to the student's by this number, against
    forgetting."""
    score_by: ScoreBy = "teacher"
    """Let the teacher choose among the captions, by its denoising errors. The next two are controls. `shuffled` is a
    placebo: each sample has the teacher's errors in random order, so that the choices are as sure, and say nothing
    about the image. With `base`, the base chooses by its similarities, and its student learns only what the base knows
    already. `labels` reads the choices from the file that `labels` names."""
    score_labels: ScoreLabels = "soft"
    """Distil the probabilities of the choice (`soft`), or only its most probable caption (`hard`)."""
    score_candidates: ScoreCandidates = "all"
    """Choose among the caption and its negatives (`all`). Or choose among the negatives alone (`negatives`), if the
    caption does not say which of them is right, as a list of tags."""
    score_temperature: Positive = 0.003
    """Divide the teacher's denoising errors by this temperature in the softmax that turns them into probabilities.
    The default was chosen for the demo's teacher. For another teacher, compare two values in the training log.
    `target_own` is the mean probability of the right caption. `target_chance` is the value that a teacher without
    any knowledge would give it. The temperature fits if the first is clearly higher and not close to 1. If the caption
    is no candidate, the log has `target_best` instead, the mean probability of the most probable one."""
    score_draws: Count = 8
    """Score each image at this many noise levels."""
    score_error: ErrorOf = SCORE_ERROR
    """Use the error of the noise (`epsilon`) or of the velocity (`velocity`) as the score. The error of the velocity
    gives high noise levels more weight."""
    score_t_min: Share = 0.3
    """The lowest timestep at which images are scored, as a fraction of the teacher's timesteps."""
    score_t_max: Share = 0.95
    """The highest timestep at which images are scored, as a fraction of the teacher's timesteps."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute the student's matrix products in this format. Its weights, losses and normalisation are always
    float32."""
    teacher_precision: Precision = "auto"
    """Hold the teacher's denoiser and compute its products in this format."""
    teacher_offload: bool = False
    """Keep the teacher's text encoders and VAE in the host's memory, and on the device only while they encode. The
    denoiser moves there when it is first needed. What is computed stays the same."""
    activation_checkpointing: bool = False
    """Compute the denoiser's activations again in the backward pass, so that the gradient `full` needs less memory."""
    log_every: Count = 25
    """Write a line to the log each time this many steps are done. With a teacher's loss, each line also costs one
    pass of the denoiser with the captions, or the images, of other samples."""
    save_every: Count = 200
    """Save a checkpoint each time this many steps are done."""
    keep_checkpoints: Count = 2
    """Keep this many checkpoints."""

    @property
    def lora_scale(self) -> float:
        return 1.0 if self.lora_alpha is None else self.lora_alpha / self.lora_rank

    @property
    def makes_negatives(self) -> bool:
        """Whether negatives are made of the captions."""
        return _are_made(self.negatives)

    @property
    def balances_negatives(self) -> bool:
        """Whether negatives that a reader tells by the words alone are left out."""
        return self.makes_negatives if self.negatives_balance is None else self.negatives_balance

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
    """The configuration of a whole run: the base, the teacher, the data, the method and the machine."""

    base: str = "demo"
    """Fine-tune this model, given by its reference."""
    teacher: str | None = None
    """Distil this teacher: a diffusers folder, a hub id or `demo`. The objective `clip`
    needs none, and neither does `score` with `score_by` base."""
    objective: Objective = "sds-clip"
    """Train for this objective. `clip` is L_CLIP alone, without a teacher: the control. `sds-clip` adds L_SDS to
    L_CLIP. `condition` adds L_condition, in which the image embedding takes the place of the caption. `noise-contrast`
    adds L_noise, in which an image's own embedding must lead the teacher to the truth, and away from what the
    embeddings of three other images lead to. `score` distils the teacher's choice among a caption and its hard
    negatives."""
    seed: Seed = 0
    """Use this seed for everything random, except for what `negatives_seed` decides."""

    data: Path
    """Train on these pairs: COCO captions, a CSV or TSV table, WebDataset shards (`{00000..00099}.tar`), Parquet files,
    a folder that Hugging Face's `datasets` saved, or a folder of images with .txt files, a
    metadata.jsonl or a metadata.csv."""
    data_format: DataFormat = "auto"
    """Read `data` and `val` in this format. `auto` derives it from their names."""
    images: Path | None = None
    """Look in this folder for the images that a file names. The default is the folder of that file."""
    image_key: str = "filepath"
    """Read the images, or their names, from this column of a table. Parquet and Hugging Face's layouts may also call
    it image, file_name or path."""
    caption_key: str = "title"
    """Read the captions from this column of a table. Parquet and Hugging Face's layouts may also call it text, caption
    or captions."""
    separator: str | None = None
    """Split a table's columns at this character. By default it is a tab, or a comma in a .csv whose first line has
    no tab."""
    val: Path | None = None
    """Measure the validation losses on the first 1,024 of these pairs. They must have the same format as `data`."""
    val_images: Path | None = None
    """Look in this folder for the images of `val`. By default `images` is used."""

    device: str = "auto"
    """Run on this device: auto, cpu, cuda or cuda:N. With several processes, the launcher chooses the devices."""
    labels: Path | None = None
    """Read the choices of the objective `score` from this JSONL file, with `score_by` labels. Its format is in the
    reference of file formats."""
    caption_cache: Path | None = None
    """Keep the teacher's caption embeddings in this folder."""
    workers: Count = 2
    """Decode images in this many threads."""

    @model_validator(mode="after")
    def _belongs_together(self) -> "FinetuneConfig":
        check_combination(
            self.objective, self.teacher, self, labels=self.labels, validates=self.val is not None
        )
        return self

    @property
    def teacher_weight(self) -> float | Literal["auto"]:
        """The paper's lambda."""
        return teacher_weight(self.objective, self)

    @property
    def uses_sds(self) -> bool:
        """Whether L_SDS has a part in the run, which needs the captions' embeddings."""
        return self.objective == "sds-clip"

    @property
    def uses_negatives(self) -> bool:
        """Whether hard negatives have a part in a loss. If one may be right, only a scored choice has them."""
        return self.negatives != "none" and (self.objective == "score" or self.score_candidates == "all")

    @property
    def uses_base(self) -> bool:
        """Whether the base's features have a part in a loss."""
        return self.feature_distillation_weight > 0 or self.similarity_distillation_weight > 0

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher has a part in the run."""
        return needs_teacher(self.objective, self)

    @property
    def needs_vae(self) -> bool:
        """Whether the teacher must encode images."""
        return self.objective in ("score", *BY_CONDITION) or (self.uses_sds and self.mapper_start == "ridge")


def sections(config: type[TrainingOptions]) -> dict[str, str]:
    """The section of each option."""
    section, found = "", {}
    for name in config.model_fields:
        found[name] = section = _SECTIONS.get(name, section)
    return found


def teacher_weight(objective: Objective, options: TrainingOptions) -> float | Literal["auto"]:
    """`sds_weight`, or its default for the objective."""
    by_default = 200.0 if objective == "condition" else 1.0
    return by_default if options.sds_weight is None else options.sds_weight


def needs_teacher(objective: Objective, options: TrainingOptions) -> bool:
    return objective != "clip" and not (objective == "score" and options.score_by in ("base", "labels"))


def check_combination(
    objective: Objective,
    teacher: str | None,
    options: TrainingOptions,
    *,
    validates: bool,
    labels: Path | None = None,
) -> None:
    """Raise ValueError for options that are valid one by one but not together. A job has no file of `labels`.

    `validates` says whether there are validation pairs.
    """
    if options.steps is None and options.epochs is None:
        raise ValueError("The length of the run is missing. Give either steps or epochs.")
    if options.steps is not None and options.epochs is not None:
        raise ValueError("Give either steps or epochs, but not both.")
    if teacher is None and needs_teacher(objective, options):
        raise ValueError(
            f"The objective {objective} needs a teacher; give one, or choose the objective clip"
            f"{', or score_by: base' if objective == 'score' else ''}."
        )
    if options.trainable != "lora" and (given := _of_lora(options)):
        raise ValueError(
            f"The option {given} is for trainable: lora, and this run trains {options.trainable}."
        )
    if options.lora_alpha is not None and options.lora_alpha > _MOST_ALPHA:
        raise ValueError(f"The option lora_alpha must be at most {_MOST_ALPHA:g}.")
    if options.alpha == "auto" and not validates:
        raise ValueError(
            "The option alpha: auto is chosen by validation pairs, and the run has none. Give some."
        )
    if objective in ("sds-clip", *BY_CONDITION) and options.trainable == "text-map":
        raise ValueError(
            f"The objective {objective} trains the image tower, and trainable: text-map only texts; use the objective "
            "clip or score, with negatives."
        )
    if objective in BY_CONDITION and options.guidance is not None:
        raise ValueError(
            f"The objective {objective} has no caption, so guidance has nothing to strengthen. Leave it out."
        )
    if objective in BY_CONDITION and options.gradient != "full":
        raise ValueError(
            f"The objective {objective} reaches the student through the denoiser. Use gradient: full, the default."
        )
    if objective == "score" and options.conflicts != "keep":
        raise ValueError(
            "The option conflicts: project is for the objectives sds-clip, condition and noise-contrast. The loss of "
            "the objective score reaches both towers, and is added as it is. Leave the option out."
        )
    if objective == "score" and options.negatives == "none":
        raise ValueError("The objective score needs negatives: data, or a kind that is made, such as swap.")
    if options.score_candidates == "negatives" and (options.makes_negatives or options.negatives_count == 1):
        raise ValueError(
            "With score_candidates: negatives, the right caption must be among at least two negatives. Those that are "
            "made are all wrong, so use negatives: data and negatives_count: 2 or more."
        )
    if options.negatives_balance and (options.negatives == "none" or options.score_candidates == "negatives"):
        raise ValueError(
            "The option negatives_balance leaves out negatives that are wrong. It needs negatives, and "
            "score_candidates: all."
        )
    if objective == "score" and options.negatives_loss != "choice":
        raise ValueError("The objective score needs negatives_loss: choice.")
    if (objective == "score" and options.score_by == "labels") != (labels is not None):
        raise ValueError(
            "The objective score by score_by: labels and a file of labels go together. Jobs take no such file; use "
            "`sds-clip finetune`."
        )
    _check_negatives(objective, options)
    if options.sds_weight == "auto" and objective in ("clip", "score"):
        raise ValueError(
            f"The option lambda: auto is for a teacher's loss on the image features, and the objective {objective} has "
            "no such loss. Leave it out; negatives_weight is the weight of a choice."
        )
    if options.sds_weight == "auto" and options.warmup_steps == 0:
        raise ValueError(
            "The option lambda: auto is measured in the warm-up. Give warmup_steps of 1 or more."
        )
    for low, high in (("t_min", "t_max"), ("score_t_min", "score_t_max")):
        least, most = getattr(options, low), getattr(options, high)
        if not least < most:
            raise ValueError(f"{low} ({least:g}) must be below {high} ({most:g}).")
    if options.teacher_batch_size > options.batch_size:
        raise ValueError(
            f"The option sds_batch_size must be at most batch_size, which is {options.batch_size}."
        )
    if objective == "noise-contrast" and options.teacher_batch_size % NOISE_CONTRAST_GROUP:
        raise ValueError(
            f"The objective noise-contrast compares images in groups of {NOISE_CONTRAST_GROUP}. Use a multiple of "
            f"{NOISE_CONTRAST_GROUP} as sds_batch_size, which is batch_size if it is not given."
        )


def _of_lora(options: TrainingOptions) -> str | None:
    """Return the first option of LoRA that is not its default."""
    fields = type(options).model_fields
    ours = (name for name in fields if name.startswith("lora_"))
    return next((name for name in ours if getattr(options, name) != fields[name].default), None)


def _check_negatives(objective: Objective, options: TrainingOptions) -> None:
    """Raise ValueError for terms on the hard negatives that have none, or another target."""
    on_choice = ("negatives_focal_gamma", "negatives_label_smoothing")
    soft, unsure = objective == "score" and options.score_labels == "soft", options.score_candidates != "all"
    for name in (*on_choice, "intra_modal_weight", "rank_weight"):
        wrong = {
            "needs negatives: data, or a kind that is made, such as swap.": options.negatives == "none",
            "takes the negatives to be wrong; score_candidates: negatives takes one to be right.": unsure,
            "is for negatives_loss: choice.": name in on_choice and options.negatives_loss != "choice",
            "needs one right caption, not probabilities; use score_labels: hard.": name in on_choice and soft,
        }
        if getattr(options, name) and any(wrong.values()):
            raise ValueError(f"The option {name} {next(why for why, holds in wrong.items() if holds)}")


def check_split(objective: Objective, options: TrainingOptions, processes: int) -> None:
    """Raise ConfigError if batches cannot be split evenly over so many processes."""
    sizes = {"batch_size": options.batch_size, "sds_batch_size": options.teacher_batch_size}
    for name, size in sizes.items():
        if size % processes:
            raise ConfigError(f"{name} {size} cannot be split evenly over {processes} processes.")
    if objective == "noise-contrast" and options.teacher_batch_size // processes % NOISE_CONTRAST_GROUP:
        raise ConfigError(
            f"sds_batch_size {options.teacher_batch_size} cannot be split over {processes} processes in groups of "
            f"{NOISE_CONTRAST_GROUP}, which the objective noise-contrast compares."
        )


def parse_config(values: dict[str, object]) -> FinetuneConfig:
    """Validate a mapping of options.

    Raises ConfigError that names each wrong option and its allowed values.
    """
    try:
        return FinetuneConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, FinetuneConfig) from error


def config_error(error: ValidationError, schema: type[BaseModel]) -> ConfigError:
    problems = " ".join(_problem(detail, schema) for detail in error.errors())
    return ConfigError(f"The configuration cannot be used. {problems}")


def _problem(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    said = explain(detail, schema)
    return f"{name}: {said}" if name else said
