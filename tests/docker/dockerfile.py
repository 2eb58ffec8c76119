"""What a Dockerfile says, and its build stage carried out without Docker: in a folder, on this machine."""

import json
import os
import shlex
import shutil
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """One, with its continuation lines joined."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value in its JSON form (`["a", "b"]`), which may come behind options and CMD."""
        words: list[str] = json.loads(self.value[self.value.index("[") :])
        return words


class Dockerfile:
    """The file at a path below the repository, as its stages."""

    def __init__(self, path: str) -> None:
        lines = (REPOSITORY / path).read_text().replace("\\\n", " ").splitlines()
        self.stages: list[list[Instruction]] = []
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, _, value = line.partition(" ")
            if name == "FROM":
                self.stages.append([])
            self.stages[-1].append(Instruction(name, value.strip()))

    def last(self, name: str) -> Instruction:
        """The one that counts in the image."""
        return [instruction for instruction in self.stages[-1] if instruction.name == name][-1]

    def build(self, folder: Path, **arguments: str) -> Path:
        """Carry out the first stage below a folder; returns where the programs of its environment are."""
        working, environment = folder, {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
        for name, value in ((one.name, one.value) for one in self.stages[0]):
            value = value.replace("/opt/venv", f"{folder}/opt/venv").replace("/build", f"{folder}/build")
            match name:
                case "ARG":
                    key, _, default = value.partition("=")
                    environment[key] = arguments.get(key, default)
                case "ENV":
                    pairs = [pair.partition("=") for pair in shlex.split(value)]
                    values = {key: string.Template(text).substitute(environment) for key, _, text in pairs}
                    environment |= values
                case "WORKDIR":
                    working = Path(value)
                    working.mkdir(parents=True)
                case "COPY":
                    *sources, target = value.split()
                    for source in sources:
                        _copy(REPOSITORY / source, working / target)
                case "RUN":
                    subprocess.run(["sh", "-ec", value], cwd=working, env=environment, check=True)
        return folder / "opt/venv/bin"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
