"""The answers to a request for a job."""

from typing import Any

from fastapi import Response

from app.schemas.finetune import DryRunResult
from app.schemas.jobs import job_info
from app.store.records import Job

ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRunResult, "description": "What a dry run found."},
    202: {
        "description": "The job.",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "Where the job is."},
            "Idempotency-Replayed": {
                "schema": {"type": "string"},
                "description": "`true` where an earlier request with this Idempotency-Key made the job.",
            },
        },
    },
}


def accepted(job: Job, is_new: bool) -> Response:
    """202, with where the job is."""
    headers = {"Location": f"/jobs/{job.id}"}
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return Response(
        job_info(job).model_dump_json(), status_code=202, headers=headers, media_type="application/json"
    )


def tried(result: DryRunResult) -> Response:
    """200: nothing was accepted."""
    return Response(result.model_dump_json(), media_type="application/json")
