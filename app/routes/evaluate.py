"""POST /evaluate."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.bodies import reads
from app.errors import DiskReserve
from app.openapi import describe_errors, describe_json
from app.routes.accepted import ACCEPTED, accepted, tried
from app.routes.shared import WRITING, BackendDep, IdempotencyKey, Train
from app.schemas.finetune import EvaluateRequest
from app.schemas.jobs import EvaluateJobInfo

router = APIRouter(tags=["jobs"])


@router.post(
    "/evaluate",
    status_code=202,
    response_model=EvaluateJobInfo,
    responses=describe_errors(*WRITING, DiskReserve) | ACCEPTED,
    openapi_extra=describe_json(EvaluateRequest),
)
async def evaluate(
    caller: Train,
    backend: BackendDep,
    body: Annotated[EvaluateRequest, Depends(reads(EvaluateRequest, form=False))],
    key: IdempotencyKey = None,
) -> Response:
    """Measure a model on a benchmark; 202 with the job, or 200 with what a dry run finds."""
    if body.dry_run:
        return tried(await backend.jobs.try_evaluate(body, caller))
    return accepted(*await backend.jobs.evaluate(body, caller, key))
