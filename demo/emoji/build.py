"""Build the world of pictures from an empty folder: `python -m sds_clip.demo.emoji.build`.

npm fetches the drawings, resvg renders them (`pip install resvg_py`), and the student is trained. An interrupted build
continues where it stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import PIL.Image

from sds_clip.demo.emoji.packages import HELD_OUT, VENDORS, install_command
from sds_clip.demo.emoji.pictures import Pictures, load_pictures, render_all, save_pictures
from sds_clip.demo.emoji.student import model_config, preprocess_config
from sds_clip.demo.emoji.train_student import Recipe, train
from sds_clip.demo.options import count, run
from sds_clip.demo.student import save_student
from sds_clip.models.atomic import atomic_file

EMOJI = Path(__file__).parent
WORK_DIR = Path(".cache/demo-pictures")


def build(work: Path, into: Path, recipe: Recipe) -> None:
    """Fetch, render, train and pack, each if it is not done yet. The held-out vendor's pictures are packed."""
    pictures = all_pictures(work)
    student = train(recipe, pictures, work)
    folder = work / "student"
    save_student(student, folder, model_config(student.vocab_size), preprocess_config())
    shutil.copytree(folder, into / "student", dirs_exist_ok=True)
    pack(pictures, into / "pictures.zip")
    example(pictures).save(into / "snail.png")
    (into / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")


def all_pictures(work: Path) -> Pictures:
    """The pictures of all vendors, from the work folder or made anew."""
    file = work / "pictures.npz"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "node_modules").exists():
            subprocess.run(shlex.split(install_command()), cwd=work, check=True)
        with atomic_file(file) as unfinished:
            save_pictures(render_all(work / "node_modules"), unfinished)
    return load_pictures(file)


def pack(pictures: Pictures, file: Path) -> None:
    """Write the held-out vendor's pictures, and all their names, as an archive whose bytes depend on nothing else."""
    shown = [(pictures.concepts[pictures.concept[place]], place) for place in pictures.of([HELD_OUT.name])]
    with zipfile.ZipFile(file, "w") as archive:
        names = [{"code": each.code, "name": each.name, "keywords": each.keywords} for each, _ in shown]
        lines = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in names)
        archive.writestr(zipfile.ZipInfo("names.jsonl"), lines, zipfile.ZIP_DEFLATED)
        for each, place in shown:
            content = io.BytesIO()
            PIL.Image.fromarray(pictures.pixels[place]).save(
                content, "WEBP", lossless=True, quality=100, method=6
            )
            archive.writestr(zipfile.ZipInfo(f"{each.code}.webp"), content.getvalue())


def example(pictures: Pictures) -> PIL.Image.Image:
    """The held-out vendor's snail on white, with which a first request is made."""
    (place,) = pictures.of([HELD_OUT.name], {"1F40C"})
    drawn = PIL.Image.fromarray(pictures.pixels[place])
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")


def attribution() -> str:
    """Who drew the pictures that the student has seen, and those that are packed."""
    rows = "\n".join(f"- {each.attribution}" for each in VENDORS)
    return f"""# Whose pictures these are

`pictures.zip` and `snail.png` hold pictures of {HELD_OUT.name}. The student was trained on those of the other sets,
turned, scaled, changed in colour and put beside each other. Names and keywords are Unicode's, by emojibase-data (Miles
Johnson, MIT).

{rows}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work-dir", type=Path, default=WORK_DIR, help="Folder for all that is made on the way."
    )
    parser.add_argument("--into", type=Path, default=EMOJI, help="Folder into which the result is written.")
    parser.add_argument(
        "--steps", type=count, default=Recipe.steps, help="Training steps (default: %(default)s)."
    )
    options = parser.parse_args()
    try:
        build(options.work_dir, options.into, Recipe(steps=options.steps))
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run(main)
