"""One target under one engine, in a process of its own, which bench.fuzz starts.

The engine is atheris (libFuzzer, guided by coverage) where it is installed; else the mutator here, which is
not guided. Prints one line of JSON at the end; an exception, a hang or growth ends the process.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
import tarfile
import time
import types
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np

SLOW_S = 5
"""Processor time of one input that counts as a hang; on a busy computer the wall clock tells nothing."""
_WALL_S = 300
"""The engine's own bound, for a call that waits."""
MOST_MB = 2048
GUIDING = ("rt", "sim", "tomllib", "mcap", "mcap_protobuf")
"""Packages whose coverage guides atheris."""
UNGUIDED = ("rt.robot.kinematics", "rt.robot.ur_pose", "sim.hardware.ur.arm")
"""Modules of them that only compute: counting their branches costs time and guides nothing."""
CORPUS = Path(__file__).parents[2] / "tests" / "corpus"
"""Kept inputs: `TARGET.tar.xz`."""
_SEED = "seed"


def kept(target: str) -> list[bytes]:
    """The kept inputs of a target."""
    path = CORPUS / f"{target}.tar.xz"
    if not path.is_file():
        return []
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive]
        return [file.read() for file in files if file is not None]


def keep(target: str, folder: Path) -> None:
    """Keep, beside what is kept, what a run's corpus reaches beyond that and the target's seeds. The same
    inputs make the same file."""
    from bench.fuzz.targets import TARGETS

    fuzzed, found = TARGETS[target], [path.read_bytes() for path in folder.iterdir()]
    run, seeds = fuzzed.run(), fuzzed.seeds()
    before = kept(target)
    some = before + reaching(run, seeds + before, found)
    path = CORPUS / f"{target}.tar.xz"
    path.unlink(missing_ok=True)
    if not some:
        return
    with tarfile.open(path, "w:xz", preset=9) as archive:
        for data in some:
            about = tarfile.TarInfo(sha1(data).hexdigest())
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))


def reaching(
    run: Callable[[bytes], object], known: list[bytes], others: list[bytes]
) -> list[bytes]:
    """The other inputs, the short ones before the long, with a step from one line to the next that neither
    a known one nor one of them before took."""
    files = {function.__code__.co_filename for function in parsers()}
    taken: set[tuple[types.CodeType, int, int]] = set()

    def trace(frame: types.FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in files:
            return None
        last = 0

        def step(frame: types.FrameType, event: str, arg: object) -> Callable[..., Any]:
            nonlocal last
            taken.add((frame.f_code, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    def new(data: bytes) -> bool:
        before = len(taken)
        sys.settrace(trace)
        try:
            run(data)
        finally:
            sys.settrace(None)
        return len(taken) > before

    for data in known:
        new(data)
    return [data for data in sorted(others, key=lambda data: (len(data), data)) if new(data)]


def mutated(rng: np.random.Generator, seeds: list[bytes], longest: int) -> Iterator[bytes]:
    """Endless mutations of the seeds: bytes changed, cut, doubled, moved and spliced."""
    while True:
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(int(rng.integers(1, 6))):
            at, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
            kind = int(rng.integers(6))
            if kind == 0 and data:
                data[min(at, len(data) - 1)] = int(rng.integers(256))
            elif kind == 1:
                del data[at : min(end, at + 40)]
            elif kind == 2:
                data[at:at] = data[at:end][:200]
            elif kind == 3:
                data[at:at] = (
                    rng.integers(0, 256, int(rng.integers(1, 9))).astype(np.uint8).tobytes()
                )
            elif kind == 4:
                other = seeds[rng.integers(len(seeds))]
                data[at:] = other[at:]
            elif data:
                digits = [k for k, c in enumerate(data) if chr(c) in "0123456789.-"]
                if digits:
                    data[digits[rng.integers(len(digits))]] = b"0123456789.-e"[rng.integers(13)]
        yield bytes(data[:longest])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_plain(target: str, runs: int, seconds: float, seed: int) -> dict[str, float | str]:
    """The mutator here. Raises whatever the target does; RuntimeError for a hang or growth."""
    from bench.fuzz.targets import TARGETS

    fuzzed = TARGETS[target]
    run, seeds = fuzzed.run(), fuzzed.seeds() + kept(target)
    for data in seeds:
        run(data)
    began, before_mb, count = time.monotonic(), peak_mb(), 0
    for data in mutated(np.random.default_rng(seed), seeds, fuzzed.longest):
        if count >= runs or time.monotonic() - began > seconds:
            break
        start = time.process_time()
        try:
            run(data)
        except Exception:
            print(f"input {data.hex()}", file=sys.stderr)
            raise
        if (took_s := time.process_time() - start) > SLOW_S:
            raise RuntimeError(f"hangs for {took_s:.1f} s: input {data.hex()}")
        count += 1
    grown = peak_mb() - before_mb
    if peak_mb() > MOST_MB:
        raise RuntimeError(f"grew to {peak_mb():.0f} MB")
    return {
        "engine": "plain",
        "runs": count,
        "seconds": time.monotonic() - began,
        "grown_mb": grown,
    }


def parsers() -> list[types.FunctionType]:
    """Functions and methods of the loaded modules whose coverage guides the search."""
    found: list[types.FunctionType] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in GUIDING or name in UNGUIDED:
            continue
        own = [v for v in vars(module).values() if getattr(v, "__module__", None) == name]
        for kind in [v for v in own if isinstance(v, type)]:
            own += vars(kind).values()
        found += [v for v in own if isinstance(v, types.FunctionType)]
    return found


def bounded(run: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The target, interrupted after SLOW_S of processor time. Raises RuntimeError then."""

    def hangs(*_: object) -> None:
        raise RuntimeError(f"hangs for {SLOW_S} s")

    def limited(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, SLOW_S)
        run(data)
        signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, hangs)
    return limited


def run_guided(target: str, runs: int, seconds: float, seed: int, folder: str) -> None:
    """atheris; does not return."""
    import atheris

    from bench.fuzz.targets import TARGETS

    fuzzed = TARGETS[target]
    corpus, run = Path(folder), bounded(fuzzed.run())
    for name, inputs in ((_SEED, fuzzed.seeds()), ("kept", kept(target))):
        for data in inputs:
            run(data)  # imports what the parser imports late: that is no hang
            (corpus / f"{name}-{sha1(data).hexdigest()}").write_bytes(data)
    options = [
        f"-runs={runs}", f"-max_total_time={max(int(seconds), 1)}", f"-seed={seed + 1}",
        f"-timeout={_WALL_S}",
        f"-rss_limit_mb={MOST_MB}", f"-max_len={fuzzed.longest}", f"-artifact_prefix={corpus}-finding-",
        "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip
    for function in parsers():
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *options, folder], run)
    atheris.Fuzz()


def main() -> int:
    target, runs, seconds, seed, folder = sys.argv[1:6]
    if folder:
        run_guided(target, int(runs), float(seconds), int(seed), folder)
    print(json.dumps(run_plain(target, int(runs), float(seconds), int(seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
