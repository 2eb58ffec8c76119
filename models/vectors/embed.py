"""Embed many images into one file, in parts of which a killed run keeps every finished one.

A part is a function of the listed images, their contents and the earlier file. So a run that was killed and
continued writes the same bytes as one that was not.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from sds_clip.models.atomic import atomic_file
from sds_clip.models.errors import VectorsError
from sds_clip.models.findings import Finding
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.machine import usable_cores
from sds_clip.models.vectors.about import About, Dtype
from sds_clip.models.vectors.encoder import Encoder
from sds_clip.models.vectors.entries import list_entries, root_of
from sds_clip.models.vectors.files import check_suffix, open_vectors, write_vectors
from sds_clip.models.vectors.known import Known
from sds_clip.models.vectors.reading import PART_ENTRIES, Image, gathered_parts, read_ahead, read_image
from sds_clip.models.vectors.work import Manifest, Part, Work

_MISSING = "image_missing"


@dataclass(frozen=True)
class Options:
    """How images are embedded. `batch_size` of them go through the model together."""

    batch_size: int = 32
    threads: int = usable_cores()
    dtype: Dtype = "float32"
    image_key: str | None = None
    keep_missing: bool = False
    """Whether rows stay whose images are no longer among the given ones."""


@dataclass
class Summary:
    """What a run has done."""

    rows: int = 0
    embedded: int = 0
    """By this process; the other rows are from an earlier one."""
    unreadable: int = 0
    missing: int = 0
    """Rows of the earlier file whose images are gone."""
    left_out: Counter[str] = field(default_factory=Counter)
    """The files in folders that are no images by their names, by their suffixes."""

    def counts_left_out(self) -> str:
        """`left_out` in words: 37 .heic files, 1 .txt file."""
        said = []
        for suffix, count in self.left_out.most_common():
            files = "file" if count == 1 else "files"
            said.append(f"{count} {suffix} {files}" if suffix else f"{count} {files} without a suffix")
        return ", ".join(said)


def embed(
    inputs: Sequence[str],
    out: Path,
    encoder: Encoder,
    options: Options = Options(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Embed folders, files, tables and shards into `out`, and list what cannot be read in `errors_file(out)`.

    Images whose content `out` already has are copied from it. A run that was killed is finished first, and then
    what has changed since is embedded. `progress(done, total)` is called after every part.

    Raises:
        VectorsError or DataError: there is nothing to embed, or `out` or what a killed run left is of another kind.
        OSError: the disk is full, for example.
    """
    check_suffix(out)
    run = _Run(inputs, out, encoder, options, progress)
    while not run.finish():
        pass
    return run.summary


def errors_file(out: Path) -> Path:
    return out.with_suffix(".errors.jsonl")


def work_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@dataclass
class _Run:
    """A run over what is there, which is repeated until nothing has changed meanwhile."""

    inputs: Sequence[str]
    out: Path
    encoder: Encoder
    options: Options
    progress: Callable[[int, int], None]
    summary: Summary = field(default_factory=Summary)

    def finish(self) -> bool:
        """Begin a run, or finish one. Return whether it embedded what is there now."""
        self.summary.left_out.clear()
        with Work(work_folder(self.out)) as work:
            manifest = work.manifest()
            is_new = manifest is None
            if manifest is None:
                manifest = self._begin(work)
            else:
                self._check_same(work, manifest)
            work.resume()
            if not work.done.is_last:
                try:
                    known = self._known()
                    if is_new:
                        self._check_related(known, work)
                except VectorsError:
                    if is_new:
                        work.remove()
                    raise
                self._add_parts(work, manifest, known)
            self._join(work, manifest.about)
            is_current = is_new or work.is_listed(self._listed())
            work.remove()
        return is_current

    @cached_property
    def _about(self) -> About:
        return About(
            version=self.encoder.version,
            dimensions=self.encoder.dimensions,
            dtype=self.options.dtype,
            images=Path(os.path.relpath(root_of(self.inputs), self.out.parent)).as_posix(),
            reference=self.encoder.reference,
            precision=self.encoder.precision,
            decoding=self.encoder.decoding,
            image_key=self.options.image_key,
        )

    @cached_property
    def _absolute(self) -> list[str]:
        return sorted({os.path.abspath(given) for given in self.inputs})

    def _listed(self) -> Iterator[ImageRef]:
        own = os.path.abspath(self.out.with_suffix("")) + "."  # the files of an earlier or unfinished run

        def leave_out(path: str) -> None:
            if not os.path.abspath(path).startswith(own):
                self.summary.left_out[Path(path).suffix.lower()] += 1

        return list_entries(self.inputs, image_key=self.options.image_key, leave_out=leave_out)

    def _begin(self, work: Work) -> Manifest:
        try:
            if self.out.exists():
                self.encoder.decode_as(open_vectors(self.out).about.decoding)
            manifest = work.begin(self._about, self._absolute, self.options.batch_size, self._listed())
            if not manifest.entries:
                found = f" ({self.summary.counts_left_out()})" if self.summary.left_out else ""
                raise VectorsError(f"There are no images in {', '.join(self.inputs)}{found}; check the path.")
        except BaseException:
            shutil.rmtree(work.folder)
            raise
        return manifest

    def _check_same(self, work: Work, manifest: Manifest) -> None:
        self.encoder.decode_as(manifest.about.decoding)
        difference = self._about.difference(manifest.about)
        if manifest.inputs != self._absolute:
            difference = f"it embeds {', '.join(manifest.inputs)}"
        elif manifest.batch_size != self.options.batch_size:
            difference = f"its batch size is {manifest.batch_size}"
        if difference is not None:
            raise VectorsError(
                f"{work.folder} holds an unfinished run of another kind: {difference}. Finish it with the options with "
                "which it was begun, choose another --out, or remove that folder."
            )

    def _known(self) -> Known:
        if not self.out.exists():
            return Known(None)
        vectors = open_vectors(self.out)
        if difference := self._about.difference(vectors.about):
            raise VectorsError(
                f"{self.out} exists, and its rows are of another kind: {difference}. Choose another --out, or remove "
                "the file."
            )
        if self.options.keep_missing and vectors.about.images != self._about.images:
            raise VectorsError(
                f"{self.out} has images of another folder ({vectors.about.images}), and the rows of both cannot be "
                "told apart. Choose another --out, or embed both folders by one command."
            )
        return Known(vectors)

    def _check_related(self, known: Known, work: Work) -> None:
        """Refuse to replace a file by one that has none of its images, which is hardly what was meant."""
        if not known.missing or self.options.keep_missing:
            return
        if not any(each.name in known.missing for each in work.remaining()):
            raise VectorsError(
                f"{self.out} exists, and none of its {len(known)} images is among these. Choose another --out, or "
                "remove the file."
            )

    def _add_parts(self, work: Work, manifest: Manifest, known: Known) -> None:
        options = self.options
        known.meet(work.finished_paths())
        self.progress(work.done.entries, manifest.entries)
        read = partial(read_image, encoder=self.encoder, known=known)
        ahead = read_ahead(work.remaining(), read, batch_size=options.batch_size, threads=options.threads)
        with closing(ahead) as images:
            for gathered in gathered_parts(images, options.batch_size):
                part = self._part(gathered, known)
                work.add(part)
                self.summary.embedded += len(part.rows) - sum(image.row is not None for image in gathered)
                known.meet(image.path for image in gathered)
                self.progress(work.done.entries, manifest.entries)
        end = "kept" if options.keep_missing else "dropped"
        message = f"The image is not among the given ones any more; its row was {end}."
        errors = [{"path": path, "code": _MISSING, "message": message} for path in known.missing]
        if options.keep_missing:
            for part in known.kept(PART_ENTRIES):
                work.add(part)
        work.add(Part(entries=0, errors=errors, is_last=True))

    def _part(self, gathered: Sequence[Image], known: Known) -> Part:
        new = [image.prepared for image in gathered if image.is_new]
        encoded = iter(self.encoder.encode(new) if new else ())
        part = Part(entries=len(gathered))
        for image in gathered:
            outcome = image.problem or (next(encoded) if image.row is None else known.embedding(image.row))
            if isinstance(outcome, Finding):
                part.errors.append({"path": image.path, "code": outcome.code, "message": outcome.message})
            else:
                part.embeddings.append(np.asarray(outcome, self.options.dtype))
                part.rows.append({"path": image.path, "sha256": image.sha256})
        return part

    def _join(self, work: Work, about: About) -> None:
        codes = Counter(error["code"] for error in work.errors())
        errors = errors_file(self.out)
        if codes:
            with atomic_file(errors) as file:
                file.writelines(f"{json.dumps(error)}\n".encode() for error in work.errors())
        else:
            errors.unlink(missing_ok=True)
        self.summary.rows, self.summary.missing = work.done.rows, codes.pop(_MISSING, 0)
        self.summary.unreadable = codes.total()
        if not work.done.rows:
            work.remove()
            raise VectorsError(f"No image can be read. {errors} lists why.")
        write_vectors(self.out, about, work.done.rows, work.rows())
