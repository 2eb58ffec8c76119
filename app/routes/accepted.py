"""The answers to a request for a job."""

from typing import Any

from fastapi import Response

from app.jobs.service import JobView
from app.schemas.finetune import DryRunResult
from app.schemas.jobs import job_info

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


def accepted(view: JobView, is_new: bool) -> Response:
    """202, with where the job is."""
    headers = {"Location": f"/jobs/{view.job.id}"}
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    content = job_info(view.job, no_worker=view.no_worker).model_dump_json()
    return Response(content, status_code=202, headers=headers, media_type="application/json")


def tried(result: DryRunResult) -> Response:
    """200: nothing was accepted."""
    return Response(result.model_dump_json(), media_type="application/json")
