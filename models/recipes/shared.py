"""Pictures that training data and benchmarks share, by the hash of their files."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256

from sds_clip.models.data.pairs import PairSet, StoredPairs, Subset
from sds_clip.models.evaluation.benchmark import Benchmark
from sds_clip.models.evaluation.items import read_bytes
from sds_clip.models.images.ref import ImageRef


def shared_pictures(pairs: StoredPairs, benchmarks: Iterable[Benchmark]) -> dict[str, set[str]]:
    """Return, for each benchmark, the names of the samples whose picture file is also one of its own.

    Only files of the same size are read. A picture that was encoded anew has another hash, and is not found. Raises
    DataError or EvaluationError for a file that cannot be read.
    """
    shared: dict[str, set[str]] = {}
    owners, sizes = defaultdict[bytes, list[set[str]]](list), set[int | None]({None})
    for benchmark in benchmarks:
        found = shared.setdefault(benchmark.name, set())
        for image in {image.whole for item in benchmark.items for image in item.images}:
            content = read_bytes(image)
            sizes.add(len(content))
            owners[sha256(content).digest()].append(found)
    for index in range(len(pairs)):
        if _size(pairs.ref(index)) in sizes:
            for found in owners.get(sha256(pairs.read(index)).digest(), ()):
                found.add(pairs.sample(index).name)
    return shared


def _size(image: ImageRef | None) -> int | None:
    """The number of bytes, or None if they must be read to know."""
    if image is None or not image.is_file:
        return image.size if image else None
    with suppress(OSError):
        return image.path.stat().st_size
    return None


def without(pairs: PairSet, names: Collection[str]) -> PairSet:
    """Return the pairs without the samples of these names."""
    kept = [index for index in range(len(pairs)) if pairs.sample(index).name not in names]
    return pairs if len(kept) == len(pairs) else Subset(pairs, kept)


def sentence(shared: Mapping[str, Collection[str]]) -> str:
    """Say in a sentence how many are shared."""
    counts = ", ".join(f"{len(found)} with {name}" for name, found in shared.items() if found)
    return f"Pictures that training shares with the benchmarks, by their files' hash: {counts or 'none'}."
