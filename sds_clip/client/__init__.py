"""A client for the service, in two faces with the same methods: `Client` blocks, `AsyncClient` is awaited.

calls.py     every request, built without sending it
inference.py match, classify and embed: lists of any length, over several requests
answers.py   an answer, or the error that it is
retries.py   whether a failed call is sent again, and when
events.py    a job's events over any number of connections
upload.py    files and folders as one streamed form
images.py    what can stand for an image
record.py    what both kinds of job know; progress.py shows how far one is
sync_http.py, sync_job.py, sync.py    the face that blocks
aio_http.py, aio_job.py, aio.py       the face that is awaited
"""

from sds_clip.client.aio import AsyncClient
from sds_clip.client.aio_job import AsyncJob
from sds_clip.client.errors import APIError, ClientError, ConnectionFailed, JobFailed, UnreadableFile
from sds_clip.client.sync import Client
from sds_clip.client.sync_job import Job

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Job",
    "JobFailed",
    "UnreadableFile",
]
