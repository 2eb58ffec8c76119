"""The digests of base images, written by tools/pin_images.py."""

from tools.pin_images import pin

DOCKERFILE = """\
FROM python:3.11.14-slim-bookworm AS build
COPY --from=build /opt/venv /opt/venv
FROM python:3.11.14-slim-bookworm
"""
COMPOSE = """\
services:
  api:
    image: sds-clip-api
  redis:
    image: redis:7.4.9-bookworm
  postgres:
    image: registry.example:5000/library/postgres:17.11-bookworm@sha256:%s
""" % ("0" * 64)


def test_each_image_without_a_digest_gets_its_own_and_nothing_else_changes() -> None:
    digest = f"sha256:{'1' * 64}"
    assert pin(DOCKERFILE, {"python:3.11.14-slim-bookworm": digest}) == DOCKERFILE.replace(
        "-bookworm", f"-bookworm@{digest}"
    )
    assert pin(COMPOSE, {"redis:7.4.9-bookworm": digest}) == COMPOSE.replace(
        "redis:7.4.9-bookworm", f"redis:7.4.9-bookworm@{digest}"
    )
