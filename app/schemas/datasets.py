"""POST /datasets, GET /datasets and /datasets/{id}."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from app.schemas.common import Body
from app.schemas.listing import Listing
from app.store.records import SOURCE_PATH, Dataset, DatasetStatus
from models.evaluation.catalog import BENCHMARKS, resolve

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
        raise ValueError(f"there is no such format; there are {', '.join(FORMATS)}") from None


class DatasetFields(Body):
    """What a data set is called and holds."""

    name: Annotated[str, Field(min_length=1, max_length=128, examples=["coco-train"])]
    format: Annotated[
        str,
        AfterValidator(known_format),
        Field(description=f"One of {', '.join(FORMATS)}, or another spelling of these.", examples=[PAIRS]),
    ]
    max_bad_share: Annotated[
        float,
        Field(ge=0, le=1, description="The share of pairs or items that may be unusable, and is left out."),
    ] = 0.0

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or not name.strip():
            raise ValueError("must be printable, and more than spaces")
        return name


class RegisterDataset(DatasetFields):
    """Data that lie on the server already, under a folder that its operator opened for this."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "coco-train", "format": PAIRS, "source": "/data/coco/{00000..00099}.tar"}]
        }
    )

    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_SOURCE_CHARS,
            description="An absolute path, with or without file://: a folder, or WebDataset shards.",
        ),
    ]


class SourceInfo(BaseModel):
    """Where a data set came from."""

    kind: Literal["archive", "shards", "registered"]
    path: str | None = Field(None, description="Of a registered one.")
    size_bytes: int | None = Field(None, description="Of an upload.")
    sha256: list[str] | None = Field(None, description="Of an upload's files, in their order.")


class DatasetInfo(BaseModel):
    """A data set."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    format: str
    status: DatasetStatus = Field(description="Only a `ready` one is trained or evaluated on.")
    created_at: float
    checked_at: float | None
    content_hash: str | None = Field(description="SHA-256 of all that a model sees of it.")
    counts: dict[str, int] | None
    problems: list[dict[str, Any]] | None = Field(
        description="Why it was rejected, or what was left out: code and message; the first of them."
    )
    max_bad_share: float
    source: SourceInfo

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetInfo":
        source = dataset.source
        shown = SourceInfo(
            kind="registered" if SOURCE_PATH in source else source.get("upload", "archive"),
            path=source.get(SOURCE_PATH),
            size_bytes=source.get("size_bytes"),
            sha256=source.get("sha256"),
        )
        return cls(**{**vars(dataset), "source": shown, "max_bad_share": dataset.max_bad_share})


class DatasetList(Listing):
    """Data sets, the newest first."""

    data: list[DatasetInfo]
