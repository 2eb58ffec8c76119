"""GET /jobs/{id}/items and GET /jobs/{id}/comparison."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sds_clip.app.datasets.samples import shown
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import AmbiguousName, FilesOutside, NoItems, NotComparable, Overloaded
from sds_clip.app.jobs.evaluation_service import Item
from sds_clip.app.routes.pictures import AfterIndex
from sds_clip.app.routes.shared import READING, BackendDep, BackendWithFiles, JobId, Limit, Train
from sds_clip.app.schemas.items import ComparisonInfo, Flip, ItemInfo, ItemList, ItemScores
from sds_clip.app.schemas.samples import MAX_TEXTS
from sds_clip.models.evaluation.results import ItemOutcome

router = APIRouter(
    tags=["jobs"], responses=describe_errors(*READING, AmbiguousName, NoItems, FilesOutside, Overloaded)
)


async def _other_id(
    caller: Train,
    backend: BackendDep,
    given: Annotated[
        str | None,
        Query(
            alias="with",
            max_length=128,
            description="The id or name of another job that measured the same items, which came before. By default it "
            "is the job's own baseline.",
        ),
    ] = None,
) -> str | None:
    return None if given is None else await backend.jobs.id_of(caller, given)


OtherId = Annotated[str | None, Depends(_other_id)]
On = Annotated[
    str | None,
    Query(
        description="For a fine-tuning job, one of the names in `evaluations` of its result, such as `winoground "
        "(ds_5f0c1a2b3c4d5e6f7a8b9c0d)`. By default, it is the first of them or, with another job, the first that was "
        "measured there too.",
    ),
]


@router.get("/jobs/{job_id}/items", responses=describe_errors(NotComparable))
async def list_items(
    caller: Train,
    backend: BackendWithFiles,
    job_id: JobId,
    other_id: OtherId,
    on: On = None,
    tag: Annotated[str | None, Query(description="Return only items that have this tag.")] = None,
    flip: Annotated[
        Flip | None,
        Query(description="Return only items whose outcome changed so from the other job to this one."),
    ] = None,
    outcome: Annotated[
        str | None,
        Query(
            description="The outcome that `flip` and `right` look at. By default it is that of the primary figure."
        ),
    ] = None,
    right: Annotated[
        bool | None,
        Query(description="Return only items that this job's model has right (true), or wrong (false)."),
    ] = None,
    after: AfterIndex = -1,
    limit: Limit = 20,
) -> ItemList:
    """List the items that a job has measured, with outcomes, scores, and the paths of their pictures.

    An evaluation has measured its data set, and a fine-tuning job those of `evaluate`. The items are in the order of
    the data set. If another job is named, each item also has its scores there.
    """
    page = await backend.evaluations.items(
        caller,
        job_id,
        other_id,
        on=on,
        tag=tag,
        flip=flip,
        outcome=outcome,
        right=right,
        after=after,
        limit=limit,
    )
    ids = [item.sample_id for item in page.items]
    pictures = await backend.samples.paths_of(caller, page.dataset_id, ids)
    data = [_info(item, page.benchmark, pictures.get(item.sample_id, [])) for item in page.items]
    return ItemList(data=data, has_more=page.has_more)


@router.get("/jobs/{job_id}/comparison", responses=describe_errors(NotComparable))
async def compare_jobs(
    caller: Train, backend: BackendWithFiles, job_id: JobId, other_id: OtherId, on: On = None
) -> ComparisonInfo:
    """Compare what a job has measured with another job, item by item, over all items and by tag.

    `model` is this job, and `baseline` the other one. Both must have measured the same data in the same way. Each may
    be an evaluation, or a fine-tuning job with benchmarks in `evaluate`, such as a job and its control.
    """
    return ComparisonInfo.model_validate(await backend.evaluations.compare(caller, job_id, other_id, on))


def _info(item: Item, benchmark: str, images: list[str]) -> ItemInfo:
    outcome = item.outcome
    return ItemInfo(
        **vars(_scores(outcome)),
        index=item.index,
        id=shown(outcome.id),
        benchmark=benchmark,
        tags=[shown(tag) for tag in outcome.tags[:MAX_TEXTS]],
        captions=[shown(caption) for caption in outcome.captions[:MAX_TEXTS]],
        images=images,
        other=None if item.other is None else _scores(item.other),
    )


def _scores(of: ItemOutcome) -> ItemScores:
    scores = [list(row) for row in of.scores] or None
    return ItemScores(outcomes=of.correct, margins=of.margins, scores=scores)
