"""POST, GET and DELETE /datasets, and the samples of a data set."""

from typing import Any

from fastapi import APIRouter, Request, Response

from sds_clip.app.bodies import reads
from sds_clip.app.content_type import JSON, MULTIPART, media_type
from sds_clip.app.datasets.service import FILE, SHARDS
from sds_clip.app.edge.openapi import describe_errors, describe_upload
from sds_clip.app.errors import (
    AmbiguousName,
    DatasetBusy,
    DiskReserve,
    FilesOutside,
    InvalidImage,
    NameTaken,
    NoItem,
    NoSamples,
    NoTables,
    Overloaded,
    PictureGone,
    RecordInUse,
    StorageFull,
    UnsupportedMediaType,
)
from sds_clip.app.form_stream import FormStream
from sds_clip.app.routes.pictures import PICTURE, AfterIndex, MaxSide, Number, PictureResponse
from sds_clip.app.routes.shared import (
    READING,
    WRITING,
    After,
    BackendDep,
    BackendWithFiles,
    DatasetId,
    EventNumber,
    Limit,
    Owner,
    SearchDep,
    Train,
)
from sds_clip.app.schemas.datasets import DatasetFields, DatasetInfo, DatasetList, Format, RegisterDataset
from sds_clip.app.schemas.jobs import EventList
from sds_clip.app.schemas.listing import Deleted
from sds_clip.app.schemas.samples import SampleList
from sds_clip.app.store.records import DatasetStatus

FILES: dict[str, Any] = {
    FILE: {
        "type": "string",
        "format": "binary",
        "description": "A tar, tar.gz or zip archive of the data set.",
    },
    SHARDS: {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "WebDataset shards in place of an archive. Repeat the field for each shard.",
    },
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The data set was received. The server is now checking it.",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The path of the data set."}},
    }
}

router = APIRouter(tags=["data sets"], responses=describe_errors(*READING, AmbiguousName))
_registration = reads(RegisterDataset, form=False)


@router.post(
    "/datasets",
    status_code=202,
    responses=describe_errors(*WRITING, NameTaken, StorageFull, DiskReserve) | ACCEPTED,
    openapi_extra=describe_upload(RegisterDataset, DatasetFields, FILES),
)
async def add_dataset(
    request: Request, response: Response, caller: Train, backend: BackendWithFiles
) -> DatasetInfo:
    """Upload a data set, or register data that are already on the server. The data are checked in the background.

    The fields of the form may come before or after its files. If they come first, errors in them are reported
    before the files are read.
    """
    given = media_type(request.headers)
    if given == MULTIPART:
        form = FormStream(request.headers["content-type"], request.stream())
        dataset = await backend.datasets.receive(caller, form)
    elif given == JSON:
        dataset = await backend.datasets.register(caller, await _registration(request))
    else:
        raise UnsupportedMediaType(
            f"Send files as {MULTIPART}, or the path of data on the server as {JSON}, and name that type in the "
            "Content-Type header."
        )
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return DatasetInfo.of(dataset)


@router.get("/datasets")
async def list_datasets(
    caller: Train,
    backend: BackendDep,
    search: SearchDep,
    status: DatasetStatus | None = None,
    format: Format | None = None,
    owner: Owner = None,
    after: After = None,
    limit: Limit = 20,
) -> DatasetList:
    """List data sets, newest first. Deleted data sets are listed only with `status=deleted`."""
    if after is not None:
        after = await backend.datasets.id_of(caller, after)
    return await backend.datasets.list(
        caller, status=status, format=format, owner=owner, search=search, after=after, limit=limit
    )


@router.get("/datasets/{dataset_id}")
async def get_dataset(caller: Train, backend: BackendDep, dataset_id: DatasetId) -> DatasetInfo:
    """Return a data set: whether it can be used, how much it holds, and what is wrong with it."""
    return await backend.datasets.get(caller, dataset_id)


@router.get("/datasets/{dataset_id}/events")
async def list_dataset_events(
    caller: Train,
    backend: BackendDep,
    dataset_id: DatasetId,
    after: EventNumber = 0,
    limit: Limit = 100,
) -> EventList:
    """Return what happened in the check of a data set. Events are kept for a month after its end.

    The check is a job, whose id is `job_` and the id of the data set.
    """
    return await backend.datasets.events(caller, dataset_id, after=after, limit=limit)


@router.delete("/datasets/{dataset_id}", responses=describe_errors(RecordInUse, DatasetBusy, FilesOutside))
async def delete_dataset(caller: Train, backend: BackendWithFiles, dataset_id: DatasetId) -> Deleted:
    """Delete a data set and its files, unless an unfinished job needs it. It is no error to delete it twice."""
    await backend.datasets.delete(caller, dataset_id)
    return Deleted(id=dataset_id, object="dataset")


@router.get("/datasets/{dataset_id}/samples", responses=describe_errors(NoSamples, PictureGone, FilesOutside))
async def list_samples(
    caller: Train, backend: BackendWithFiles, dataset_id: DatasetId, after: AfterIndex = -1, limit: Limit = 20
) -> SampleList:
    """List the samples of a data set that is ready, in the order of the data, with the paths of their pictures.

    Samples that cannot be used are listed too.
    """
    return await backend.samples.page(caller, dataset_id, after=after, limit=limit)


@router.get(
    "/datasets/{dataset_id}/samples/{index}/images/{n}",
    response_class=Response,
    responses=describe_errors(
        NoSamples, NoItem, PictureGone, InvalidImage, NoTables, Overloaded, FilesOutside
    )
    | PICTURE,
)
async def get_sample_image(
    caller: Train,
    backend: BackendWithFiles,
    dataset_id: DatasetId,
    index: Number,
    n: Number,
    max_side: MaxSide = None,
) -> Response:
    """Return a picture of a sample. Of a benchmark's item with a box, it is the part in the box."""
    return PictureResponse(*await backend.samples.picture(caller, dataset_id, index, n, max_side=max_side))
