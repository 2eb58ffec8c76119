"""The golden embeddings of a published version, which it must reproduce before it is served."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sds_clip.app.registry.manifest import VersionError
from sds_clip.models.checkpoints.delta_file import GOLDEN_FILE
from sds_clip.models.clip.golden import Golden
from sds_clip.models.errors import first_line


def write_golden(folder: Path, golden: Golden) -> None:
    """Write the embeddings of full weights beside them, in the format of a delta. Raises OSError."""
    features = {"image_features": golden.image_features, "text_features": golden.text_features}
    (folder / GOLDEN_FILE).unlink(missing_ok=True)
    save_file(features, folder / GOLDEN_FILE, metadata={"seed": str(golden.seed)})


def read_golden(folder: Path) -> Golden:
    """Read the file of `write_golden`. Raises VersionError."""
    file = folder / GOLDEN_FILE
    try:
        with safe_open(file, "pt") as opened:
            seed = int((opened.metadata() or {})["seed"])
            return Golden(seed, opened.get_tensor("image_features"), opened.get_tensor("text_features"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise VersionError(
            f"{file} cannot be read ({type(error).__name__}: {first_line(error)}). Publish the version again."
        ) from error
