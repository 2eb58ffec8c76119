# A worker: one slot for jobs. On a CPU; for a GPU, with PyPI's torch, whose CUDA packages have hashes:
#     docker build -f docker/worker.Dockerfile --build-arg TORCH=torch-cuda --build-arg TORCH_INDEX_URL=https://pypi.org/simple .
FROM python:3.11.14-slim-bookworm AS build
ARG TORCH=torch
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY locks/$TORCH.txt ./torch.txt
RUN python -m venv /opt/venv && pip install --index-url "$TORCH_INDEX_URL" -r torch.txt
# Before the packages, so that a change of theirs does not install the dependencies again.
COPY locks/worker.txt ./
RUN pip install --require-hashes --no-deps -r worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY models ./models
COPY sds_clip ./sds_clip
COPY worker ./worker
COPY demo ./demo
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm
# Fresh volumes take owner and mode from these folders.
RUN groupadd --gid 10001 sds-clip \
    && useradd --no-log-init --create-home --uid 10001 --gid 10001 sds-clip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data /weights \
    && install --directory --owner=10001 --group=10001 --mode=0750 /datasets /secrets/postgres /secrets/redis
COPY --from=build /opt/venv /opt/venv
COPY docker/entrypoint.py docker/worker_health.py /docker/
# What results state as the code that computed them, beside the version.
ARG GIT_COMMIT=
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SDS_CLIP_COMMIT=$GIT_COMMIT
USER 10001:10001
WORKDIR /data
HEALTHCHECK --interval=30s --timeout=15s --start-period=2m --retries=3 \
    CMD ["python", "/docker/entrypoint.py", "python", "/docker/worker_health.py"]
ENTRYPOINT ["python", "/docker/entrypoint.py"]
CMD ["sds-clip", "worker", "--queue", "finetune"]
