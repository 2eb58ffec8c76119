"""The images that ours are built from: from their registry, or stand-ins made of Debian's packages."""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from tests.docker.compose import BASE, REPOSITORY
from tests.docker.engine import Engine

STAND_INS = Path(__file__).parent / "stand_ins"
CACHE = REPOSITORY / ".cache" / "docker"
DEBIAN = "sds-clip-test/debian"
PIP_CONF = Path("etc/pip.conf")


def build(engine: Engine, source: Path, tag: str, images: Mapping[str, str]) -> None:
    """Build images of a release as they are: their names by those of their Dockerfiles."""
    is_offline = provide(engine, CACHE, source)
    options = ["--build-arg=TORCH_INDEX_URL=https://pypi.org/simple"] if is_offline else []
    for file, image in images.items():
        engine.run(
            *("build", "--network", "host", "--file", source / f"docker/{file}.Dockerfile"),
            *("--tag", f"{image}:{tag}", *options, source),
            timeout_s=3600,
        )
        size = int(engine.inspect(f"{image}:{tag}", "{{.Size}}"))
        print(f"{image}:{tag} has {size / 1e9:.2f} GB{' over a stand-in' if is_offline else ''}.")


def base_images(source: Path) -> dict[str, str]:
    """What the Dockerfiles and docker-compose.yml of a release name, by the name of its stand-in."""
    (python,) = set(re.findall(r"^FROM (\S+)", (source / "docker/api.Dockerfile").read_text(), re.MULTILINE))
    fetched = re.findall(r"^ +image: ((redis|postgres):\S+)", (source / BASE).read_text(), re.MULTILINE)
    return {name: tag.partition("@")[0] for tag, name in [(python, "python"), *fetched]}


def provide(engine: Engine, folder: Path, source: Path) -> bool:
    """Pull a release's base images, or make stand-ins if no registry answers. Returns whether they are stand-ins."""
    missing = {
        name: tag
        for name, tag in base_images(source).items()
        if not engine.run("images", "--quiet", tag).strip()
    }
    made = False
    for name, tag in missing.items():
        if engine.run("pull", tag, check=False).rstrip().endswith(tag):
            continue
        made = True
        _make(engine, name, tag, folder)
    return made or bool(engine.run("images", "--quiet", DEBIAN).strip())


def _make(engine: Engine, name: str, tag: str, folder: Path) -> None:
    if not engine.run("images", "--quiet", DEBIAN).strip():
        _make_debian(engine, folder)
    context = folder / name
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(STAND_INS, context)
    if name == "python":
        copy_interpreter(context / "tree")
    engine.run("build", "--network", "host", "--file", context / f"{name}.Dockerfile", "--tag", tag, context,
               timeout_s=1200)  # fmt: skip
    shutil.rmtree(context)


def _make_debian(engine: Engine, folder: Path) -> None:
    """The Debian of this machine, so that this machine's interpreter runs in it."""
    root = folder / "debian"
    shutil.rmtree(root, ignore_errors=True)
    suite = _release()
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(root)]
    engine.command(command, timeout_s=1800)
    # So that packages can be fetched in the same way as on this machine.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    archive = folder / "debian.tar"
    subprocess.run(["tar", "--create", "--file", archive, "--directory", root, "."], check=True)
    engine.run("import", archive, DEBIAN, timeout_s=600)
    archive.unlink()
    shutil.rmtree(root)


def _release() -> str:
    told = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    return told["VERSION_CODENAME"].strip('"')


def copy_interpreter(tree: Path) -> None:
    """Copy the interpreter that runs the tests, its libraries, and pip's settings."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = Path(sys.base_prefix)
    binaries = tree / "usr/local/bin"
    binaries.mkdir(parents=True)
    shutil.copy2(home / "bin" / name, binaries / name)
    (binaries / "python3").symlink_to(name)
    standard = Path(sysconfig.get_path("stdlib"))
    library = tree / "usr/local/lib" / name
    shutil.copytree(
        standard,
        library,
        ignore=shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*", "_tkinter*"),
    )
    (library / "site-packages").mkdir()
    for file in _libraries([binaries / name, *library.glob("lib-dynload/*.so")]):
        shutil.copy2(file, tree / "usr/local/lib" / file.name)
    _copy_pip_settings(tree)


def _libraries(programs: list[Path]) -> set[Path]:
    """The shared libraries that programs are linked with, but for those of every Debian."""
    told = subprocess.run(["ldd", *programs], stdout=subprocess.PIPE, text=True).stdout
    found = {Path(path) for path in re.findall(r"=> (/\S+)", told)}
    return {
        file for file in found if not re.match(r"(libc|libm|libdl|libpthread|libutil|librt)\.so", file.name)
    }


def _copy_pip_settings(tree: Path) -> None:
    """pip's settings on this machine, and the local files that they name, for example a folder of wheels."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    lines = ["[global]"]
    for option, value in re.findall(r"^(?::env:|\w+)\.([\w-]+)='(.*)'$", told, re.MULTILINE):
        if f"{option} = {value}" in lines:
            continue
        lines.append(f"{option} = {value}")
        source = Path(value)
        if source.is_absolute() and source.exists() and not (tree / value[1:]).exists():
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            (tree / value[1:]).parent.mkdir(parents=True, exist_ok=True)
            copy(source, tree / value[1:])
    (tree / PIP_CONF).parent.mkdir(parents=True, exist_ok=True)
    (tree / PIP_CONF).write_text("\n".join(lines) + "\n")
