"""Several processes share a batch: the averaged gradient and the weights are those of one process."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from synthetic import make_dataset

from sim.dataset.store import open_split
from train.batches import Batches
from train.checkpoint import load_checkpoint
from train.network import DistanceNetwork
from train.team import Team, assemble

SMALL = ("--batch", "8", "--offsets-per-image", "4", "--validation-images", "8")
RUN = (*SMALL, "--preset", "paper", "--threads", "1", "--precision", "float32")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team") / "set"
    make_dataset(folder)
    return folder


def gradient(data: Path, team: Team) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Of one batch in float64, and the mean over the processes of (loss, rank)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DistanceNetwork().double()
    batch = Batches(open_split(data, "train"), 8, 4, seed=0, part=(team.rank, team.size))(3)
    shared = team.share(network)  # kept: it averages for as long as it lives
    predicted = shared(batch.depth.double(), batch.actions.double())
    loss = (predicted - batch.distance.double()).abs().mean()
    loss.backward()
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found, team.mean([float(loss.detach()), team.rank], CPU)


def one_of_two(rank: int, data: Path, folder: Path, port: int) -> None:
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_PORT": port}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        for name, value in place.items():
            patch.setenv(name, str(value))
        with assemble(CPU) as (team, device):
            assert (team.rank, team.size, device) == (rank, 2, CPU)
            torch.save(gradient(data, team), folder / f"{rank}.pt")
            assert gloo_threads()
        # A thread that outlives the interpreter aborts the process at its end, now and then.
        assert not gloo_threads()


def gloo_threads() -> list[str]:
    """Names of this process's threads that work for gloo."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def test_the_averaged_gradient_is_that_of_one_process(
    data: Path, tmp_path: Path, free_port: int
) -> None:
    torch.multiprocessing.spawn(one_of_two, (data, tmp_path, free_port), nprocs=2)
    expected, (loss, _) = gradient(data, Team())
    for rank in (0, 1):
        found, means = torch.load(tmp_path / f"{rank}.pt")
        assert means == pytest.approx([loss, 0.5], rel=1e-12)
        assert found.keys() == expected.keys()
        for name, g in expected.items():
            torch.testing.assert_close(found[name], g, rtol=1e-10, atol=1e-14, msg=name)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", "-m", "train.fit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_torchrun_trains_the_network_of_one_process(data: Path, tmp_path: Path) -> None:
    """Six steps by two processes and by one: the same weights and curve, to rounding."""
    from train.fit import main  # here: what this file imports, the spawned processes import again

    together = torchrun(data, "--out", tmp_path / "two", "--steps", 6, *RUN)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("best constant") == 1  # one lead that speaks
    assert main([*map(str, (data, "--out", tmp_path / "one", "--steps", 6, *RUN))]) == 0
    two, one = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert two["step"] == one["step"] == 6 and two["run"] == one["run"]
    for name, weight in one["network"].items():
        torch.testing.assert_close(two["network"][name], weight, rtol=0, atol=2e-6, msg=name)
    losses = [[p["loss_m"] for p in saved["curve"]] for saved in (one, two)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
