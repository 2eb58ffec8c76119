"""Pictures that training data and benchmarks share, by the hash of their files."""

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from sds_clip.models.data.pairs import PairSet, StoredPairs, Subset
from sds_clip.models.evaluation.benchmark import Benchmark
from sds_clip.models.evaluation.items import read_bytes


def shared_pictures(pairs: StoredPairs, benchmarks: Iterable[Benchmark]) -> dict[str, set[str]]:
    """Return, for each benchmark, the names of the samples whose picture file is also one of its own.

    A picture that was encoded anew has another hash, and is not found. Raises DataError or EvaluationError for a file
    that cannot be read.
    """
    own: dict[bytes, list[str]] = {}
    for index in range(len(pairs)):
        own.setdefault(sha256(pairs.read(index)).digest(), []).append(pairs.sample(index).name)
    return {
        benchmark.name: {
            name
            for image in {image.whole for item in benchmark.items for image in item.images}
            for name in own.get(sha256(read_bytes(image)).digest(), ())
        }
        for benchmark in benchmarks
    }


def without(pairs: PairSet, names: Collection[str]) -> PairSet:
    """Return the pairs without the samples of these names."""
    kept = [index for index in range(len(pairs)) if pairs.sample(index).name not in names]
    return pairs if len(kept) == len(pairs) else Subset(pairs, kept)


def told(shared: Mapping[str, Collection[str]]) -> str:
    """Say in a sentence how many are shared."""
    counts = ", ".join(f"{len(found)} with {name}" for name, found in shared.items() if found)
    return f"Pictures that training shares with the benchmarks, by their files' hash: {counts or 'none'}."
