"""POST /datasets, GET /datasets and /datasets/{id}."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from sds_clip.app.schemas.common import Body, Name, example
from sds_clip.app.schemas.listing import Listing
from sds_clip.app.store.records import SOURCE_PATH, Dataset, DatasetStatus, Job
from sds_clip.app.store.states import HELD
from sds_clip.models.evaluation.catalog import BENCHMARKS, resolve

PAIRS = "pairs"
FORMATS = (PAIRS, *BENCHMARKS)
"""The formats of data sets: pairs to train on, or what a benchmark reads."""
MAX_SOURCE_CHARS = 4096
"""The limit on the path of registered data."""


def known_format(name: str) -> str:
    """Resolve a data set format's name or alias to its own name. Raises ValueError for an unknown one."""
    if name == PAIRS:
        return name
    try:
        return resolve(name)
    except ValueError:
        raise ValueError(f"There is no such format; choose one of {', '.join(FORMATS)}") from None


Format = Annotated[
    str,
    AfterValidator(known_format),
    Field(
        description=f"The format of the data: one of {', '.join(FORMATS)}, or an alias of one of them.",
        examples=[PAIRS],
    ),
]


class DatasetFields(Body):
    """The name and the format of a data set."""

    name: Annotated[
        Name | None,
        Field(
            description="What you call the data set, in at most 64 letters, digits, dots, hyphens and underscores. "
            "The name stands for its id, and none of your other data sets may have it.",
            examples=["coco-train"],
        ),
    ] = None
    format: Format
    max_bad_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The share of pairs or items, from 0 to 1, that may be unusable. Unusable ones are left "
            "out. If there are more, the data set is rejected.",
        ),
    ] = 0.0


class RegisterDataset(DatasetFields):
    """Data that are already on the server, in a folder that the operator opened for data sets."""

    model_config = example({"name": "coco-train", "format": PAIRS, "source": "/data/coco/{00000..00099}.tar"})

    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_SOURCE_CHARS,
            description="The absolute path of a folder or of WebDataset shards. It may begin with file://.",
        ),
    ]


class SourceInfo(BaseModel):
    """Where a data set came from."""

    kind: Literal["archive", "shards", "registered"]
    path: str | None = Field(None, description="The path of registered data. It is null for an upload.")
    size_bytes: int | None = Field(
        None, description="The size of an upload in bytes. It is null for registered data."
    )
    sha256: list[str] | None = Field(
        None,
        description="The SHA-256 of each uploaded file, in the order of the upload. It is null for registered "
        "data.",
    )


class Histogram(BaseModel):
    """How many values lie between edges: `edges[k] <= value < edges[k + 1]`."""

    edges: list[int] = Field(
        description="One more edge than counts. All bins are equal but the last one, which takes the highest values."
    )
    counts: list[int]


class Statistics(BaseModel):
    """How long the captions of a data set are, and how large its images."""

    caption_words: Histogram | None = Field(
        description="The number of words of each caption, counted between white space."
    )
    image_longer_side: Histogram | None = Field(description="The longer side of each image, in pixels.")


class DatasetInfo(BaseModel):
    """A data set and the result of its check."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str = Field(description="The data set's name. It is empty if it was given none.")
    format: str
    status: DatasetStatus = Field(
        description="The state of the data set. Jobs can use it only when it is `ready`."
    )
    being_checked: bool = Field(
        description="Whether a worker is checking the data set. While it is `validating` and this is false, it waits "
        "for a worker."
    )
    created_at: float
    checked_at: float | None = Field(description="When the check ended. It is null while the check runs.")
    content_hash: str | None = Field(
        description="The SHA-256 of everything in the data set that a model sees."
    )
    counts: dict[str, int] | None = Field(description="What the check counted, such as samples.")
    statistics: Statistics | None = Field(
        description="Histograms, which the check counts. They are null before it, for a data set that was rejected, "
        "and for one that an older release checked."
    )
    problems: list[dict[str, Any]] | None = Field(
        description="The first problems that the check found, each with a code and a message. They say why the "
        "data set was rejected, or what was left out. While it is `validating`, the one problem says why its check is "
        "paused."
    )
    max_bad_share: float
    source: SourceInfo
    owner: str = Field(
        description="The name of the API key that made the data set. It is empty without keys."
    )

    @classmethod
    def of(cls, dataset: Dataset, check: Job | None = None) -> "DatasetInfo":
        """`check` is that of a data set without a verdict, once it is submitted."""
        source = dataset.source
        shown = SourceInfo(
            kind="registered" if SOURCE_PATH in source else source.get("upload", "archive"),
            path=source.get(SOURCE_PATH),
            size_bytes=source.get("size_bytes"),
            sha256=source.get("sha256"),
        )
        more = {"max_bad_share": dataset.max_bad_share, "source": shown}
        more["being_checked"] = check is not None and check.status in HELD
        if check is not None and (reason := check.pause_reason) is not None:
            message = f"{reason.message} The check is paused; POST /jobs/{check.id}/resume lets it go on."
            more["problems"] = [{"code": reason.code, "message": message}]
        return cls(**vars(dataset) | more)


class DatasetList(Listing):
    """Data sets, newest first."""

    data: list[DatasetInfo]
