"""GET /workers."""

from fastapi import APIRouter

from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.routes.shared import READING, BackendDep, Train
from sds_clip.app.schemas.workers import WorkerList

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING))


@router.get("/workers")
async def list_workers(caller: Train, backend: BackendDep) -> WorkerList:
    """List the workers of the last day.

    Each says whether it is alive, and which job it is running if you see that job.
    """
    return await backend.jobs.workers(caller)
