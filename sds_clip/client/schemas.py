"""What the service takes and answers, as types. /docs of the service describes every field.

`...Options` and `...Filters` are the keyword arguments of a method; what is None is not sent. The other types are the
schemas of the service. Of an image that could not be read (`on_error="skip"`), there are `index` and `error` alone.
"""

# Generated from the service's schemas by `make client`.
# ruff: noqa: D101, E501, E702
# fmt: off
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, final


class MatchOptions(TypedDict, total=False):
    on_error: Literal["fail", "skip"] | None; model: str | None
class MatchComparisonOptions(TypedDict):
    on_error: NotRequired[Literal["fail", "skip"] | None]; models: Sequence[str]
class ClassifyOptions(TypedDict, total=False):
    templates: Literal["simple", "openai"] | Sequence[str] | None; top_k: int | None
    on_error: Literal["fail", "skip"] | None; model: str | None
class ClassifyComparisonOptions(TypedDict):
    templates: NotRequired[Literal["simple", "openai"] | Sequence[str] | None]; top_k: NotRequired[int | None]
    on_error: NotRequired[Literal["fail", "skip"] | None]; models: Sequence[str]
class EmbedOptions(TypedDict, total=False):
    normalize: bool | None; encoding_format: Literal["float", "base64"] | None; model: str | None
    on_error: Literal["fail", "skip"] | None
class PromoteOptions(TypedDict, total=False):
    force: bool | None; owner: str | None; expected_generation: int | None; wait_s: float | None
class RollbackOptions(TypedDict, total=False):
    expected_generation: int | None; wait_s: float | None
class RemoveOptions(TypedDict, total=False):
    expected_generation: int | None
class RegisterOptions(TypedDict, total=False):
    max_bad_share: float | None
class Hyperparameters(TypedDict, total=False):
    trainable: Literal["layernorm", "batchnorm", "all", "text-map", "lora"]; lora_rank: int
    lora_alpha: float | None; lora_targets: Literal["attention", "mlp", "both"]; max_bad_share: float
    steps: int | None; epochs: float | None; batch_size: int; micro_batch_size: int | None
    sds_batch_size: int | None; lr: float; mapper_lr: float; weight_decay: float; warmup_steps: int
    max_gradient_norm: float; alpha: float | Literal["auto"]; sds_weight: float | Literal["auto"] | None
    conflicts: Literal["keep", "project"]; gradient: Literal["full", "sds"]
    weighting: Literal["uniform", "one-minus-abar", "sqrt-abar", "min-snr"]; min_snr_gamma: float; t_min: float
    t_max: float; t_schedule: Literal["uniform", "annealed"]; guidance: float | None
    mapper_input: Literal["normalized", "raw"]; mapper_start: Literal["random", "ridge"]; ridge: float
    ridge_images: int; mapper_warmup_steps: int; condition_tokens: int
    negatives: Literal["none", "data", "made", "swap", "move", "replace", "shuffle"]; negatives_balance: bool | None
    negatives_count: int; negatives_seed: int; negatives_loss: Literal["choice", "contrast"]
    negatives_weight: float; negatives_focal_gamma: float; negatives_label_smoothing: float
    intra_modal_weight: float; rank_weight: float; rank_max_threshold: float; paraphrase_weight: float
    feature_distillation_weight: float; similarity_distillation_weight: float
    score_by: Literal["teacher", "shuffled", "base", "labels"]; score_labels: Literal["soft", "hard"]
    score_candidates: Literal["all", "negatives"]; score_temperature: float; score_draws: int
    score_error: Literal["epsilon", "velocity"]; score_t_min: float; score_t_max: float
    precision: Literal["auto", "float32", "bfloat16"]
    teacher_precision: Literal["auto", "float32", "bfloat16", "float16"]; teacher_offload: bool
    activation_checkpointing: bool; log_every: int; save_every: int; keep_checkpoints: int
class Evaluation(TypedDict):
    benchmark: str; data: str
class Thresholds(TypedDict, total=False):
    max_p: float; max_loss: float
class FinetuneOptions(TypedDict, total=False):
    name: str | None; suffix: str | None; metadata: Mapping[str, str] | None; priority: int | None
    max_run_time_s: float | None; base: str | None; teacher: str | None; validation_data: str | None
    objective: Literal["clip", "sds-clip", "condition", "noise-contrast", "score"] | None
    hyperparameters: Hyperparameters | None; evaluate: Sequence[Evaluation] | None
    promote: Literal["never", "if_better", "always"] | None; alias: str | None; thresholds: Thresholds | None
    seed: int | None; devices: int | None
class EvaluateOptions(TypedDict, total=False):
    name: str | None; suffix: str | None; metadata: Mapping[str, str] | None; priority: int | None
    max_run_time_s: float | None; model: str | None; scorer: Literal["clip", "diffusion"] | None
    teacher: str | None; baseline: str | None; classes: Literal["imagenet"] | None
    templates: Literal["photo", "simple", "openai"] | None; order_seed: int | None; draws: int | None
    seed: int | None; score_error: Literal["epsilon", "velocity"] | None
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None; batch_size: int | None
    max_bad_share: float | None
VersionStatus: TypeAlias = Literal["ready", "deleted"]
class ModelFilters(TypedDict, total=False):
    status: VersionStatus | None; owner: str | None; base: str | None; metadata: Sequence[str] | None
    name: str | None; created_after: float | None; created_before: float | None
DatasetStatus: TypeAlias = Literal["validating", "ready", "rejected", "deleted"]
class DatasetFilters(TypedDict, total=False):
    status: DatasetStatus | None; format: str | None; owner: str | None; name: str | None
    created_after: float | None; created_before: float | None
JobKind: TypeAlias = Literal["finetune", "evaluate", "check"]
JobStatus: TypeAlias = Literal["validating", "queued", "running", "pausing", "paused", "cancelling", "cancelled", "succeeded", "failed"]
class JobFilters(TypedDict, total=False):
    kind: JobKind | None; status: JobStatus | None; owner: str | None; name: str | None; created_after: float | None
    created_before: float | None
Flip: TypeAlias = Literal["right_to_wrong", "wrong_to_right", "changed", "same"]
class ItemFilters(TypedDict, total=False):
    on: str | None; tag: str | None; flip: Flip | None; outcome: str | None; right: bool | None
class CurveOptions(TypedDict, total=False):
    points: int | None; from_step: int | None; to_step: int | None
class ModelInfo(TypedDict):
    name: str; version: str; generation: int
class ErrorPlace(TypedDict):
    message: str; param: NotRequired[str | None]; index: NotRequired[int | None]
class ErrorDetail(TypedDict):
    message: str; param: NotRequired[str | None]; index: NotRequired[int | None]; type: str; code: str
    errors: NotRequired[list[ErrorPlace] | None]
class ImageMatch(TypedDict):
    index: int; scores: list[float]; logits: list[float]; probabilities: list[float]; best: int; best_text: str
    error: NotRequired[ErrorDetail]
@final
class MatchResponse(TypedDict):
    model: ModelInfo; results: list[ImageMatch]; text_probabilities: NotRequired[list[list[float]]]
@final
class ModelError(TypedDict):
    name: str; error: ErrorDetail; retry_after_s: NotRequired[int | None]
class MatchComparison(TypedDict):
    answers: list[MatchResponse | ModelError]
class Prediction(TypedDict):
    label: str; index: int; score: float; probability: float
class ImageClasses(TypedDict):
    index: int; predictions: list[Prediction]; error: NotRequired[ErrorDetail]
@final
class ClassifyResponse(TypedDict):
    model: ModelInfo; results: list[ImageClasses]
class ClassifyComparison(TypedDict):
    answers: list[ClassifyResponse | ModelError]
class Embedding(TypedDict):
    index: int; embedding: list[float] | str; error: NotRequired[ErrorDetail]
class EmbedResponse(TypedDict):
    model: ModelInfo; dimensions: int; results: list[Embedding]
class LockInfo(TypedDict):
    who: str; at: float; why: str
class AliasInfo(TypedDict):
    name: str; object: Literal["alias"]; version: str; generation: int; previous: str | None; updated_at: float
    owner: str; lock: LockInfo | None; removed_at: float | None
class MetricPointInfo(TypedDict):
    step: int; values: dict[str, float | None]; created_at: float
class CheckpointInfo(TypedDict):
    step: int; created_at: float; size_bytes: int; newest: bool; metrics: MetricPointInfo | None
class PairedCountsInfo(TypedDict):
    both: int; gained: int; lost: int; neither: int
class PairedDifferenceInfo(TypedDict):
    baseline: float; model: float; difference: float; low: float; high: float; chance: float | None
    counts: PairedCountsInfo; p_better: float; p_two_sided: float
class MacroDifferenceInfo(TypedDict):
    baseline: float; model: float; difference: float; low: float; high: float; chance: float | None; metric: str
    tags: list[str]
class ComparisonInfo(TypedDict):
    object: Literal["comparison"]; benchmark: str; outcome: str; outcomes: dict[str, PairedDifferenceInfo]
    by_tag: dict[str, dict[str, PairedDifferenceInfo]]; macro: MacroDifferenceInfo | None
class CurvePoint(TypedDict):
    step: int; value: float | None
class Curve(TypedDict):
    steps: list[int]; values: list[float | None]; count: int; last: CurvePoint
class Histogram(TypedDict):
    edges: list[int]; counts: list[int]
class Statistics(TypedDict):
    caption_words: Histogram | None; image_longer_side: Histogram | None
class SourceInfo(TypedDict):
    kind: Literal["archive", "shards", "registered"]; path: str | None; size_bytes: int | None
    sha256: list[str] | None
class DatasetInfo(TypedDict):
    id: str; object: Literal["dataset"]; name: str; format: str; status: DatasetStatus; being_checked: bool
    created_at: float; checked_at: float | None; content_hash: str | None; counts: dict[str, int] | None
    statistics: Statistics | None; problems: list[dict[str, Any]] | None; max_bad_share: float; source: SourceInfo
    owner: str
class Estimate(TypedDict):
    steps: int | None; images: int | None; seconds: float | None; memory_bytes: float | None; based_on: str | None
    jobs_ahead: int
class DryRunResult(TypedDict):
    object: Literal["dry_run"]; kind: Literal["finetune", "evaluate"]; config: dict[str, Any]; estimate: Estimate
Level: TypeAlias = Literal["info", "warning", "error"]
class EventInfo(TypedDict):
    id: int; object: Literal["job.event"]; created_at: float; level: Level; type: str; message: str
    data: dict[str, Any] | None
class ItemScores(TypedDict):
    outcomes: dict[str, bool]; margins: dict[str, float]; scores: list[list[float]] | None
class ItemInfo(ItemScores):
    index: int; object: Literal["job.item"]; id: str; benchmark: str; tags: list[str]; captions: list[str]
    images: list[str]; other: ItemScores | None
class Progress(TypedDict):
    step: int; steps: int | None; share: float | None
class JobErrorInfo(TypedDict):
    code: str; message: str; param: str | None; retryable: bool
class Improvement(TypedDict):
    metric: str; compared_with: str | None; baseline: float; model: float; difference: float
class Transition(TypedDict):
    at: float; from_status: JobStatus | None; to_status: JobStatus; message: str
class AnyJobInfo(TypedDict):
    id: str; object: Literal["job"]; name: str; status: JobStatus; created_at: float; started_at: float | None
    finished_at: float | None; estimated_finish: float | None; stage: str | None; progress: Progress
    no_worker: bool; attempt: int; max_attempts: int; priority: int; interruptions: int; max_interruptions: int
    run_time_s: float; max_run_time_s: float; result_version: str | None; result: dict[str, Any] | None
    report: str | None; error: JobErrorInfo | None; pause_reason: JobErrorInfo | None
    files_removed_at: float | None; improvement: Improvement | None; owner: str; suffix: str | None
    metadata: dict[str, Any]; request: dict[str, Any] | None; transitions: list[Transition] | None
    metrics: MetricPointInfo | None; worker_silent_since: float | None
    waits_for: Literal["check", "worker", "turn", "attempt", "silent_worker", "checkpoint"] | None
@final
class FinetuneJobInfo(AnyJobInfo):
    kind: Literal["finetune"]; base: str; teacher: str | None; training_data: str; validation_data: str | None
    objective: str; hyperparameters: dict[str, Any]; evaluate: list[dict[str, Any]]
    promote: Literal["never", "if_better", "always"]; alias: str; thresholds: dict[str, float]; seed: int
    devices: int
@final
class EvaluateJobInfo(AnyJobInfo):
    kind: Literal["evaluate"]; model: str | None; benchmark: str; data: str; scorer: Literal["clip", "diffusion"]
    teacher: str | None; baseline: str | None; options: dict[str, Any]
@final
class CheckJobInfo(AnyJobInfo):
    kind: Literal["check"]; dataset: str
JobInfo: TypeAlias = FinetuneJobInfo | EvaluateJobInfo | CheckJobInfo
class ServedModel(TypedDict):
    name: str; version: str; generation: int; default: bool; reference: str; architecture: str
    precision: Literal["float32", "bfloat16", "float16"]; decoding: Literal["full", "scaled"]; device: str
    parameters: int; size_bytes: int; packed: bool; embedding_dimensions: int; image_size: list[int]
    context_length: int; probabilities: Literal["softmax", "sigmoid"]; logit_scale: float; quick_gelu: bool
class VersionInfo(TypedDict):
    id: str; object: Literal["model"]; status: Literal["ready", "damaged", "deleted"]; damaged_at: float | None
    created_at: float; size_bytes: int; base: str | None; base_version: str | None; job_id: str | None; owner: str
    downloadable: bool; aliases: list[str]
class ModelsAndVersions(TypedDict):
    models: list[ServedModel]; registry: Literal["none", "read", "away"]; aliases: list[AliasInfo]
    versions: list[VersionInfo]; bases: list[str]; teachers: list[str]; has_more: bool
RolloutState: TypeAlias = Literal["serving", "failed", "behind"]
class ProcessRollout(TypedDict):
    process: str; host: str; pid: int; at: float; state: RolloutState; version: str | None; generation: int | None
    error: str | None
class MovedAlias(AliasInfo):
    served_by_all: bool | None; processes: list[ProcessRollout] | None
AliasAction: TypeAlias = Literal["promote", "rollback", "lock", "unlock", "give", "remove"]
class PromotionInfo(TypedDict):
    id: int; at: float; who: str; alias: str; action: AliasAction; from_version: str | None; to_version: str
    generation: int; why: str; metrics: dict[str, Any] | None; job_id: str | None; forced: bool
class GateCheck(TypedDict):
    on: str; figure: str; rule: Literal["above", "below", "at_least"]; value: float; limit: float; passed: bool
class GateFigure(TypedDict):
    on: str; figure: str; before: float; after: float
class GateInfo(TypedDict):
    verdict: Literal["better", "not_better", "unknown"]; why: str; compared_with: str | None; thresholds: Thresholds
    checks: list[GateCheck]; figures: list[GateFigure]
    missing: list[Literal["winoground", "zero_shot_or_retrieval"]]; evidence: list[str]
class PromotionPlan(TypedDict):
    object: Literal["dry_run"]; name: str; from_version: str | None; to_version: str; from_generation: int
    generation: int; moves: bool; error: ErrorDetail | None; lock: LockInfo | None; gate: GateInfo
class SampleInfo(TypedDict):
    index: int; object: Literal["dataset.sample"]; id: str; captions: list[str]; tags: list[str]; images: list[str]
class VersionDetail(VersionInfo):
    description: dict[str, Any]; metrics: dict[str, Any] | None; evaluations: dict[str, Any] | None
    lineage: list[str]; promotions: list[PromotionInfo]
class WorkerInfo(TypedDict):
    id: str; object: Literal["worker"]; alive: bool; queue: JobKind; host: str; pid: int; device: str; version: str
    started_at: float; seen_at: float; clock_skew_s: float | None; out_because: str | None; job: str | None
