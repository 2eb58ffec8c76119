# The HTTP service. It carries no diffusers, and on a CPU no CUDA.
#     docker build -f docker/api.Dockerfile -t sds-clip-api .
FROM python:3.11.14-slim-bookworm AS console
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /build/console
COPY locks/console.txt ./
RUN pip install --require-hashes --no-deps -r console.txt
# Before the sources, so that a change of theirs does not fetch the packages again.
COPY console/package.json console/package-lock.json console/.npmrc ./
RUN npm ci
COPY console ./
COPY demo/data/heldout/images /build/demo/data/heldout/images
RUN npm run build

FROM python:3.11.14-slim-bookworm AS build
ARG TORCH=torch
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY locks/$TORCH.txt ./torch.txt
RUN python -m venv /opt/venv && pip install --index-url "$TORCH_INDEX_URL" -r torch.txt
# Before the packages, so that a change of theirs does not install the dependencies again.
COPY locks/api.txt ./
RUN pip install --require-hashes --no-deps -r api.txt
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY models ./models
COPY sds_clip ./sds_clip
COPY worker ./worker
COPY demo ./demo
COPY --from=console /build/app/console ./app/console
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm
# Fresh volumes take owner and mode from these folders.
RUN groupadd --gid 10001 sds-clip \
    && useradd --no-log-init --create-home --uid 10001 --gid 10001 sds-clip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data /former /secrets/admin /secrets/keys /state /weights \
    && install --directory --owner=10001 --group=10001 --mode=0750 /datasets /secrets/postgres /secrets/redis
COPY --from=build /opt/venv /opt/venv
COPY docker/entrypoint.py docker/init.py docker/migrate.py /docker/
# What results state as the code that computed them, beside the version.
ARG GIT_COMMIT=
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SDS_CLIP_COMMIT=$GIT_COMMIT
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); c.request('GET', '/ready'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "/docker/entrypoint.py"]
CMD ["sds-clip", "serve"]
