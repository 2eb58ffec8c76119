"""References: how a person names a checkpoint. The service, the command line and the jobs share this grammar.

    demo, demo-pictures                 the models in the repository: of shapes, and of emoji
    ViT-B-32/openai                     an architecture and a tag that open_clip publishes
    ViT-B-32, ViT-B/32                  the same: without a tag, OpenAI's weights are meant
    hf-hub:org/repo                     a Hugging Face repository in open_clip's layout
    local-dir:PATH, ./PATH, /PATH       a folder in open_clip's layout, or a delta over another checkpoint
    FOLDER#alpha=0.5                    a delta half-way between its base (0) and itself (1, the default)
    PATH.safetensors@ViT-B-32+gelu      bare weights with their architecture and, if need be, activation

Parsing a reference touches no file, and this module imports nothing heavy.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from sds_clip.models.errors import CheckpointError

DEMO = "demo"
DEMO_PICTURES = "demo-pictures"
DEMOS = (DEMO, DEMO_PICTURES)
"""The references of the checkpoints that ship in the repository."""
DEFAULT_TAG = "openai"
DESCRIPTION_FILE = "sds_clip_delta.json"
"""In a folder: it holds a delta, which this file describes (`sds_clip.models.checkpoints.delta_file`)."""
ADAPTER_FILE = "adapter_config.json"
"""In a folder: it holds an adapter of PEFT."""
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
ACTIVATIONS = {"gelu": False, "quickgelu": True}
"""What may follow the plus sign, and whether it means QuickGELU."""

_VERSION = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{8,63}")
_PATCH_SIZE = re.compile(r"\d+(-\d+)*(-quickgelu)?(@\d+px)?", re.IGNORECASE)
_HUB_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NAME = re.compile(r"[\w.+-]+")
_ALPHA = re.compile(r"(.*)#alpha=(.*)")
_PATH_STARTS = ("./", "../", "/", "~")


class BadReferenceError(CheckpointError):
    """The text is not a reference to a checkpoint."""

    code = "bad_reference"


@dataclass(frozen=True)
class Demo:
    """A checkpoint that ships in the repository."""

    name: str = DEMO

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Published:
    """An architecture and a tag of open_clip's registry."""

    architecture: str
    tag: str

    def __str__(self) -> str:
        return f"{self.architecture}/{self.tag}"


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub."""

    repository: str

    def __str__(self) -> str:
        return f"hf-hub:{self.repository}"


@dataclass(frozen=True)
class Folder:
    """A folder that holds `open_clip_config.json` and weights, or a delta."""

    path: str
    alpha: float | None = None
    """How far to blend from the base (0) to the delta (1). None means 1."""

    def __str__(self) -> str:
        return f"local-dir:{self.path}" + ("" if self.alpha is None else f"#alpha={self.alpha}")


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file. `quick_gelu` is None if the reference states no activation."""

    path: str
    architecture: str
    quick_gelu: bool | None = None

    def __str__(self) -> str:
        stated = {None: "", True: "+quickgelu", False: "+gelu"}[self.quick_gelu]
        return f"{self.path}@{self.architecture}{stated}"


Reference = Demo | Published | Hub | Folder | WeightsFile


def parse(text: str) -> Reference:
    """Parse a reference.

    Raises BadReferenceError if the text does not follow the grammar above; the message says what would.
    """
    text = text.strip()
    if not text or not text.isprintable():
        raise BadReferenceError("A checkpoint reference is empty or holds control characters; try `demo`.")
    if text in DEMOS:
        return Demo(text)
    if text.startswith("hf-hub:"):
        return _hub(text.removeprefix("hf-hub:"))
    if text.startswith("local-dir:"):
        return _folder(text.removeprefix("local-dir:"))
    if text.lower().endswith(PICKLES):
        raise pickle_refused(text)
    if ".safetensors" in text.lower():
        return _weights_file(text)
    if text.startswith(_PATH_STARTS):
        return _folder(text)
    return _published(text)


def demo_folder(name: str = DEMO) -> Path:
    """Return the folder of a checkpoint that ships in the repository. The package leaves out all but `demo`."""
    world = Path(__file__).parents[2] / "demo"
    return (world if name == DEMO else world / "emoji") / "student"


def shipped_demos() -> list[str]:
    """The demo models that are here."""
    return [name for name in DEMOS if demo_folder(name).is_dir()]


def expanded(path: str) -> Path:
    """Return a reference's path with `~` replaced by the home folder.

    Raises BadReferenceError if there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BadReferenceError(f"The home folder in {path} does not exist; write the whole path.") from error


def pickle_refused(path: str) -> BadReferenceError:
    """Return an error that says why a pickle is not read, and which command converts it."""
    return BadReferenceError(
        f"{path} is a pickle, which can run code when it is opened. Turn it into a folder once with "
        f"`sds-clip convert {path} --architecture ARCHITECTURE --out FOLDER` (ARCHITECTURE is, for example, "
        "ViT-B-32+gelu or ViT-B-32+quickgelu), then use `local-dir:FOLDER`."
    )


def architecture_name(text: str) -> str:
    """Spell an architecture as open_clip does: `ViT-L/14@336px` becomes `ViT-L-14-336`."""
    return re.sub(r"@(\d+)px", r"-\1", text.replace("/", "-"))


def architecture_and_activation(text: str) -> tuple[str, bool | None]:
    """Parse `ViT-B-32+quickgelu` into the architecture and, if stated, whether it is QuickGELU.

    Raises BadReferenceError for another activation, or a name that no architecture can have.
    """
    architecture, plus, activation = text.partition("+")
    if plus and activation not in ACTIVATIONS:
        raise BadReferenceError(
            f"{text}: the activation after + must be gelu or quickgelu, not {activation!r}."
        )
    if not _NAME.fullmatch(architecture_name(architecture)):
        raise BadReferenceError(f"{text!r} is not an architecture's name; try ViT-B-32.")
    return architecture_name(architecture), ACTIVATIONS.get(activation)


def _hub(repository: str) -> Hub:
    if not _HUB_REPOSITORY.fullmatch(repository):
        raise BadReferenceError(
            f"hf-hub:{repository} does not name a repository; write hf-hub:organisation/name."
        )
    return Hub(repository)


def _folder(text: str) -> Folder:
    stated = _ALPHA.fullmatch(text)
    path = stated[1] if stated else text
    if not path:
        raise BadReferenceError("local-dir: needs a path after the colon, as in local-dir:/models/mine.")
    if path.lower().endswith(PICKLES):
        raise pickle_refused(path)
    return Folder(path, _alpha(stated[2]) if stated else None)


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise BadReferenceError(f"#alpha={text}: alpha must be a number from 0 (the base) to 1 (the delta).")
    return alpha


def _weights_file(text: str) -> WeightsFile:
    path, at, described = text.rpartition("@")
    if not at or not path.lower().endswith(".safetensors"):
        raise BadReferenceError(
            f"{text}: a safetensors file does not say which architecture it belongs to; "
            "write PATH.safetensors@ARCHITECTURE, for example PATH.safetensors@ViT-B-32+gelu or "
            "PATH.safetensors@ViT-B-32+quickgelu."
        )
    return WeightsFile(path, *architecture_and_activation(described))


def _published(text: str) -> Published:
    head, slash, last = text.rpartition("/")
    if slash and not _PATCH_SIZE.fullmatch(last):
        architecture, tag = architecture_name(head), last
    else:
        architecture, tag = architecture_name(text), DEFAULT_TAG
    if not _NAME.fullmatch(architecture) or not _NAME.fullmatch(tag):
        raise BadReferenceError(
            f"{text} does not name a checkpoint. Write demo, ARCHITECTURE/TAG (ViT-B-32/openai), "
            "hf-hub:ORGANISATION/NAME, local-dir:PATH or PATH.safetensors@ARCHITECTURE."
        )
    return Published(architecture, tag)


def canonical(reference: str) -> str:
    """Return a reference in its canonical spelling, with an absolute path.

    Raises: BadReferenceError.
    """
    parsed = parse(reference)
    if isinstance(parsed, Folder | WeightsFile):
        parsed = replace(parsed, path=str(expanded(parsed.path).absolute()))
    return str(parsed)


def is_version(text: str) -> bool:
    """Return whether a name has the form of a version: 64 hexadecimal digits of a SHA-256."""
    return _VERSION.fullmatch(text) is not None


def is_prefix(text: str) -> bool:
    """Return whether a name can be the beginning of a version's id: at least 8 of its digits, but not all."""
    return _PREFIX.fullmatch(text) is not None


def is_delta(folder: Path) -> bool:
    return (folder / DESCRIPTION_FILE).is_file()
