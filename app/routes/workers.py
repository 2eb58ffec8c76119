"""GET /workers."""

from fastapi import APIRouter

from app.openapi import describe_errors
from app.routes.shared import READING, BackendDep, Train
from app.schemas.workers import WorkerList

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING))


@router.get("/workers")
async def workers(caller: Train, backend: BackendDep) -> WorkerList:
    """Who takes jobs: every worker of the last day, whether it is alive, and the job that it has."""
    return await backend.jobs.workers()
