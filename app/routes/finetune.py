"""POST /finetune."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.bodies import reads
from app.errors import DiskReserve
from app.openapi import describe_errors, describe_json
from app.routes.accepted import ACCEPTED, accepted, tried
from app.routes.shared import WRITING, BackendDep, IdempotencyKey, Train
from app.schemas.finetune import FinetuneRequest
from app.schemas.jobs import FinetuneJobInfo

router = APIRouter(tags=["jobs"])


@router.post(
    "/finetune",
    status_code=202,
    response_model=FinetuneJobInfo,
    responses=describe_errors(*WRITING, DiskReserve) | ACCEPTED,
    openapi_extra=describe_json(FinetuneRequest),
)
async def finetune(
    caller: Train,
    backend: BackendDep,
    body: Annotated[FinetuneRequest, Depends(reads(FinetuneRequest, form=False))],
    key: IdempotencyKey = None,
) -> Response:
    """Fine-tune a model on a data set; 202 with the job, or 200 with what a dry run finds."""
    if body.dry_run:
        return tried(await backend.jobs.try_finetune(body, caller))
    return accepted(*await backend.jobs.finetune(body, caller, key))
