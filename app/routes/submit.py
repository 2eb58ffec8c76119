"""POST /finetune and POST /evaluate."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from sds_clip.app.backend import Backend
from sds_clip.app.bodies import reads
from sds_clip.app.content_type import JSON
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import DiskReserve, NameTaken
from sds_clip.app.keys import Caller
from sds_clip.app.routes.shared import READING, WRITING, BackendWithFiles, IdempotencyKey, Train
from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.schemas.jobs import DryRunResult, EvaluateJobInfo, FinetuneJobInfo

ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRunResult, "description": "The result of a dry run."},
    202: {
        "description": "The job was accepted.",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "The path of the job."},
            "Idempotency-Replayed": {
                "schema": {"type": "string"},
                "description": "`true` if an earlier request with this Idempotency-Key made the job.",
            },
        },
    },
}

router = APIRouter(
    tags=["jobs"], responses=describe_errors(*READING, *WRITING, NameTaken, DiskReserve) | ACCEPTED
)


@router.post("/finetune", status_code=202, response_model=FinetuneJobInfo)
async def finetune(
    caller: Train,
    backend: BackendWithFiles,
    spec: Annotated[FinetuneSpec, Depends(reads(FinetuneSpec, form=False))],
    key: IdempotencyKey = None,
) -> Response:
    """Fine-tune a model on a data set. The answer is 202 with the job, or 200 with the result of a dry run."""
    return await _submit(spec, backend, caller, key)


@router.post("/evaluate", status_code=202, response_model=EvaluateJobInfo)
async def evaluate(
    caller: Train,
    backend: BackendWithFiles,
    spec: Annotated[EvaluateSpec, Depends(reads(EvaluateSpec, form=False))],
    key: IdempotencyKey = None,
) -> Response:
    """Measure a model on a benchmark. The answer is 202 with the job, or 200 with the result of a dry run."""
    return await _submit(spec, backend, caller, key)


async def _submit(
    spec: FinetuneSpec | EvaluateSpec, backend: Backend, caller: Caller, key: str | None
) -> Response:
    if spec.dry_run:
        found = await backend.jobs.try_out(spec, caller)
        return Response(found.model_dump_json(), media_type=JSON)
    job, is_new = await backend.jobs.submit(spec, caller, key)
    headers = {"Location": f"/jobs/{job.id}"}
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return Response(job.model_dump_json(), status_code=202, headers=headers, media_type=JSON)
