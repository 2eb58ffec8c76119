# The whole system in one container, as `sds-clip up` runs it:
#     docker build -f docker/embedded.Dockerfile -t sds-clip .
#     docker run -p 8000:8000 -v sds-clip:/data sds-clip
# On a GPU, build with --build-arg TORCH=torch-cuda --build-arg TORCH_INDEX_URL=https://pypi.org/simple, and run with --gpus all.
FROM python:3.11.14-slim-bookworm AS console
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /build/console
COPY locks/console.txt ./
RUN pip install --require-hashes --no-deps -r console.txt
COPY console/package.json console/package-lock.json console/.npmrc ./
RUN npm ci
COPY console ./
COPY demo/data/heldout/images /build/demo/data/heldout/images
RUN npm run build

# Up to its own lock it is the worker's, so that Docker builds it once.
FROM python:3.11.14-slim-bookworm AS build
ARG TORCH=torch
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY locks/$TORCH.txt ./torch.txt
RUN python -m venv /opt/venv && pip install --index-url "$TORCH_INDEX_URL" -r torch.txt
COPY locks/worker.txt ./
RUN pip install --require-hashes --no-deps -r worker.txt
COPY locks/embedded.txt ./
RUN pip install --require-hashes --no-deps -r embedded.txt
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY models ./models
COPY sds_clip ./sds_clip
COPY worker ./worker
COPY demo ./demo
COPY --from=console /build/app/console ./app/console
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 sds-clip \
    && useradd --no-log-init --create-home --uid 10001 --gid 10001 sds-clip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
COPY docker/embedded.py docker/init.py /docker/
ARG GIT_COMMIT=
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SDS_CLIP_COMMIT=$GIT_COMMIT
ENV SDS_CLIP_HOST=0.0.0.0 SDS_CLIP_DATA_DIR=/data SDS_CLIP_KEYS_FILE=/data/keys.json HF_HOME=/data/huggingface
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/ready'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "/docker/embedded.py"]
CMD ["sds-clip", "up"]
