"""POST, GET and DELETE /datasets."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.bodies import reads
from app.content_type import JSON, MULTIPART, media_type
from app.datasets.service import FILE, SHARDS
from app.errors import DatasetBusy, DiskReserve, RecordInUse, StorageFull
from app.form_stream import FormStream
from app.openapi import describe_errors, describe_upload
from app.routes.shared import READING, WRITING, After, BackendDep, Limit, Train
from app.schemas.datasets import DatasetFields, DatasetInfo, DatasetList, RegisterDataset
from app.schemas.listing import Deleted
from app.store.records import DatasetStatus

FILES: dict[str, Any] = {
    FILE: {"type": "string", "format": "binary", "description": "A tar, tar.gz or zip archive."},
    SHARDS: {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "WebDataset shards instead; repeat the field for each.",
    },
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The data set, which is being checked.",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "Where the data set is."}},
    }
}

router = APIRouter(tags=["data sets"], responses=describe_errors(*READING))
_registration = reads(RegisterDataset, form=False)


@router.post(
    "/datasets",
    status_code=202,
    response_model=DatasetInfo,
    responses=describe_errors(*WRITING, StorageFull, DiskReserve) | ACCEPTED,
    openapi_extra=describe_upload(RegisterDataset, DatasetFields, FILES),
)
async def add_dataset(request: Request, caller: Train, backend: BackendDep) -> Response:
    """Upload a data set, or register one that lies on the server; it is checked in the background.

    The form's fields may stand before or after its files; before, what is wrong with them is said at once.
    """
    if media_type(request.headers) == MULTIPART:
        form = FormStream(request.headers["content-type"], request.stream())
        dataset = await backend.datasets.receive(form, caller.name)
    else:
        dataset = await backend.datasets.register(await _registration(request), caller.name)
    return Response(
        DatasetInfo.of(dataset).model_dump_json(),
        status_code=202,
        headers={"Location": f"/datasets/{dataset.id}"},
        media_type=JSON,
    )


@router.get("/datasets")
async def datasets(
    caller: Train,
    backend: BackendDep,
    status: DatasetStatus | None = None,
    after: After = None,
    limit: Limit = 20,
) -> DatasetList:
    """List data sets, the newest first; deleted ones only with `status=deleted`."""
    page = await backend.datasets.list(status=status, after=after, limit=limit)
    return DatasetList(data=[DatasetInfo.of(dataset) for dataset in page.items], has_more=page.has_more)


@router.get("/datasets/{dataset_id}")
async def dataset(caller: Train, backend: BackendDep, dataset_id: str) -> DatasetInfo:
    """A data set: whether it can be used, how much it holds, what is wrong with it."""
    return DatasetInfo.of(await backend.datasets.get(dataset_id))


@router.delete("/datasets/{dataset_id}", responses=describe_errors(RecordInUse, DatasetBusy))
async def delete_dataset(caller: Train, backend: BackendDep, dataset_id: str) -> Deleted:
    """Delete a data set and its files, unless a job that has not ended needs it. Again is no error."""
    await backend.datasets.delete(dataset_id)
    return Deleted(id=dataset_id, object="dataset")
