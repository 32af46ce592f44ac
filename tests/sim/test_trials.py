"""sim.trials: the loop, the disturbances, the statistics, and the commands end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
from needs import needed
from numpy.typing import NDArray

from rt.pose import grasp_distance, to_view
from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.experiment import run
from sim.experiment.disturbance import CONTROL_HZ, Disturbance, TrialCamera, TrialChance
from sim.experiment.run import TrialsOptions
from sim.experiment.statistics import compare, summary
from sim.experiment.sweep import SweepConfig
from sim.experiment.trial import (
    TrialSetup,
    World,
    changes,
    make_world,
    objects_of,
    reach,
    servo,
)
from sim.scene.objects import ObjectError

OBJECTS = objects_of(TrialSetup())


class Oracle:
    """A perfect network: it is told where the view was taken from."""

    def __init__(self, world: World, eye: TrialCamera) -> None:
        self.world, self.eye, self.hand = world, eye, world.start
        self._view = eye.view
        eye.view = self._seen  # type: ignore[method-assign]

    def _seen(self, hand: NDArray[np.float64]) -> NDArray[np.float32]:
        view = self._view(hand)
        view[0, 0] = len(self.hands) if hasattr(self, "hands") else 0
        self.hands = [*getattr(self, "hands", []), hand]
        return view

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        seen_from = self.hands[int(depth[0, 0])]
        targets = to_view(self.world.grasps.poses[:, :4].astype(float), seen_from)
        nearest = grasp_distance(actions[:, None], targets[None]).min(axis=1)
        return np.asarray(nearest, np.float32)


def go(disturbance: Disturbance, noisy: bool, number: int = 0, controller: str = "paper") -> float:
    setup = TrialSetup(disturbance=disturbance, controllers=(controller,))
    world = make_world(OBJECTS, setup, number)
    fate = TrialChance(disturbance, 0, number, setup.iterations)
    eye = TrialCamera(world.renderer, "ideal", fate)
    oracle: Any = Oracle(world, eye)
    end = servo(controller, world, eye, fate, noisy, oracle, setup).end
    assert end[2] == pytest.approx(END_HEIGHT_M)
    return world.distance_m(end)


@pytest.mark.parametrize(
    ("disturbance", "noisy", "within_m"),
    [
        (Disturbance(), False, 0.003),
        (Disturbance(noise=0.4), True, 0.003),
        (Disturbance(jump=0.05), False, 0.004),
        (Disturbance(latency=3), False, 0.003),
        (Disturbance(conveyor=0.02), False, 0.02),
    ],
)
def test_with_a_perfect_network_feedback_undoes_the_disturbance(
    disturbance: Disturbance, noisy: bool, within_m: float
) -> None:
    for number in range(2):
        assert go(disturbance, noisy, number) < within_m


def test_a_motion_that_is_off_by_a_tenth_leaves_its_drift_over_the_ratio() -> None:
    """Each step down pushes the hand aside; a fifth of the way back a cycle balances it. The candidates are a
    millimetre apart."""
    for number in range(2):
        disturbance = Disturbance(correlated=0.1)
        fate = TrialChance(disturbance, 0, number, 75)
        drift_m = np.linalg.norm(fate.velocity[[0, 1, 3], 2]) * 0.002
        assert go(disturbance, False, number) < 1.2 * drift_m / 0.2 + 0.001


@pytest.mark.parametrize(
    ("disturbance", "noisy", "within_m"),
    [
        (Disturbance(noise=0.4), True, 0.006),
        (Disturbance(jump=0.05), False, 0.008),
        (Disturbance(latency=3), False, 0.006),
        (Disturbance(conveyor=0.02), False, 0.025),
    ],
)
def test_a_controller_with_a_memory_follows_too(
    disturbance: Disturbance, noisy: bool, within_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The oracle reads a mark in the view's corner: each view is looked at as it is.
    monkeypatch.setattr("rt.controller.ensemble.symmetry", lambda k, view, actions: (view, actions))
    assert go(disturbance, noisy, 0, "ensemble") < within_m


def test_a_hand_is_at_the_object_below_it_or_else_at_the_nearest() -> None:
    world = make_world(OBJECTS, TrialSetup(experiment="clutter", bin=True), 1)
    scene = world.scene
    for k in range(len(scene.placed)):
        own = scene.vertices[scene.faces[scene.face_object == k]].reshape(-1, 3)
        x, y, _ = own[own[:, 2].argmax()]
        assert world.object_at(np.array([x, y, 0.2, 0.0])) == k
    # Far beyond the bin's wall: the nearest outline decides, and a wall is no object.
    far = np.array([3.0, 0.0, 0.2, 0.0])
    edge = float(np.abs(scene.vertices[:, :2]).max())
    reached = world.object_at(far)
    assert reached == world.object_at(np.array([edge, 0.0, 0.2, 0.0])) and reached >= 0


def test_a_goal_that_goes_to_and_fro_at_a_border_changes_no_object() -> None:
    one, other = np.array([0.0, 0.0, 0.2, 0.0]), np.array([0.1, 0.0, 0.2, 0.0])
    border = [np.array([x, 0.0, 0.2, 0.0]) for x in (0.045, 0.055)]
    world: Any = SimpleNamespace(object_at=lambda hand: int(hand[0] > 0.05))
    assert changes(world, []) == 0 and changes(world, [one, *border * 20]) == 0
    assert changes(world, [one, other]) == 1 and changes(world, [one, other, one, one]) == 2
    assert changes(world, [one, *border, other, *border, one]) == 2


def test_a_blind_move_suffers_what_the_noise_says() -> None:
    setup = TrialSetup()
    miss, way = [], []
    world = make_world(OBJECTS, setup, 0)
    goal = world.grasps.poses[0, :4].astype(np.float64)
    for number in range(300):
        fate = TrialChance(Disturbance(noise=0.4), 0, number, 75)
        assert np.allclose(reach(world, goal, fate, False, setup).end[[0, 1]], goal[:2])
        end = reach(world, goal, fate, True, setup).end
        miss.append(float(grasp_distance(end[[0, 1, 3]], goal[[0, 1, 3]])))
        way.append(float(grasp_distance(world.start[[0, 1, 3]], goal[[0, 1, 3]])))
    # 0.4 |w| |delta| with |w| of three normal numbers: root mean square 0.4 sqrt(3) |delta|. A turn
    # beyond a right angle wraps, which makes the distance a little less.
    rms = np.sqrt(np.mean(np.square(miss)))
    assert 0.8 < rms / (0.4 * np.sqrt(3) * way[0]) < 1.1


def test_objects_move_as_told_and_no_disturbance_changes_another() -> None:
    still, moved = (TrialChance(Disturbance(conveyor=v), 1, 2, 75) for v in (0.0, 0.03))
    hand = np.array([0.1, 0.2, 0.2, 0.3])
    np.testing.assert_array_equal(still.to_objects(hand, 75), hand)
    way = np.linalg.norm((moved.to_objects(hand, 75) - hand)[:2])
    assert way == pytest.approx(0.03 * 75 / CONTROL_HZ)
    jump = TrialChance(Disturbance(jump=0.05, hand_eye=0.01), 1, 2, 75)
    np.testing.assert_array_equal(jump.direction, moved.direction)
    far = [np.linalg.norm(jump.to_objects(hand, k)[:2] - hand[:2]) for k in range(76)]
    assert far[0] == 0 and far[-1] == pytest.approx(0.05) and len(set(np.round(far, 9))) == 2
    assert np.linalg.norm(jump.T_camera_error[:3, 3]) == pytest.approx(0.01)
    np.testing.assert_array_equal(still.T_camera_error, np.eye(4))


def test_the_camera_shows_what_the_disturbance_says() -> None:
    world = make_world(OBJECTS, TrialSetup(), 0)

    def eye(disturbance: Disturbance) -> TrialCamera:
        return TrialCamera(world.renderer, "ideal", TrialChance(disturbance, 0, 0, 75))

    def view(disturbance: Disturbance) -> NDArray[np.float32]:
        return eye(disturbance).view(world.start)

    clean = view(Disturbance())
    assert clean.dtype == np.float32 and clean.max() <= 0.6
    noise = (view(Disturbance(depth_noise=0.002)) - clean)[clean > 0]
    assert noise.std() == pytest.approx(0.002, rel=0.1)
    whole, holes = (
        eye(Disturbance(dropout=share)).image(world.start, world.start)[0] for share in (0.0, 0.1)
    )
    assert ((holes == 0) & (whole > 0)).mean() == pytest.approx(0.1, abs=0.02)
    lost, most = (view(Disturbance(dropout=share)) for share in (0.2, 0.8))
    assert (lost > 0).mean() > 0.99 and np.median(np.abs(lost - clean)) == 0  # gaps are closed
    assert (most == 0).mean() > 0.5
    assert np.abs(view(Disturbance(hand_eye_deg=3)) - clean).max() > 0.005
    wrist = TrialCamera(world.renderer, "wrist", TrialChance(Disturbance(), 0, 0, 75))
    near = np.abs(wrist.view(world.start) - clean)[(wrist.view(world.start) > 0) & (clean > 0)]
    assert np.quantile(near, 0.9) < 0.003


@pytest.mark.parametrize("sensor", ["d405", "d435", "sr300"])
def test_a_sensor_sits_beside_the_hand_and_its_noise_begins_again(sensor: str) -> None:
    setup = TrialSetup(sensor=sensor)
    world = make_world(OBJECTS, setup, 0)
    eye = setup.eye(world.renderer, TrialChance(Disturbance(), 0, 0, 75))
    exact = TrialSetup().eye(world.renderer, TrialChance(Disturbance(), 0, 0, 75)).view(world.start)
    first, again = eye.view(world.start), eye.view(world.start)
    assert (first != again).any()
    eye.restart()
    np.testing.assert_array_equal(eye.view(world.start), first)
    both = (first > 0) & (exact > 0)
    assert 0.5 < both.mean() < 1  # it has holes
    off = np.abs(first - exact)[both]
    assert 1e-4 < np.median(off) < 0.004


def test_the_detector_is_not_shown_the_hand_itself() -> None:
    setup = TrialSetup(camera="wrist")
    world = make_world(OBJECTS, setup, 0)
    eye = setup.eye(world.renderer, TrialChance(Disturbance(), 0, 0, 75))
    depth, rays, T = eye.image(world.start, world.start)
    height = (depth[..., None] * rays @ T[:3, :3].T + T[:3, 3])[..., 2][depth > 0]
    assert height.max() < 0.14 and (depth == 0).any()  # objects are lower than that


def test_a_sweep_over_sensors_changes_the_sensor_alone() -> None:
    sweep = SweepConfig(over="sensor")
    setups = [sweep.at(value)[1] for value in sweep.strengths()]
    assert [setup.sensor for setup in setups] == ["ideal", "d405", "d435", "sr300"]
    assert len({setup.disturbance for setup in setups}) == 1
    with pytest.raises(ValueError, match="d405"):
        SweepConfig(over="sensor", values=(1.0,)).strengths()


def trials_of(**distances: list[float]) -> list[dict[str, Any]]:
    n = len(next(iter(distances.values())))
    return [
        {"final": {name: {"distance_m": d[k]} for name, d in distances.items()}} for k in range(n)
    ]


def test_intervals_hold_the_truth_and_pairs_are_paired() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        s = summary(trials_of(a=list(rng.exponential(1.0, 80))), "a")
        held += s["ci95_m"][0] <= np.log(2) <= s["ci95_m"][1]
    assert held >= 52  # 95 % of 60 is 57; fewer than 52 has a chance below 1 %
    a = rng.exponential(1.0, 200)
    pair = compare(trials_of(a=list(a), b=list(a + 0.01)), "a", "b")
    # 0.01 is far below the spread, and certain when paired.
    assert pair["difference_ci95_m"] == pytest.approx([-0.01, -0.01]) and pair["a_nearer"] == 1


def test_categories_and_clutter_decide_the_scene() -> None:
    mugs = TrialSetup(category="mug", clutter=3)
    world = make_world(objects_of(mugs), mugs, 1)
    assert [thing.category for thing in world.scene.placed] == ["mug"] * 3
    assert world.start[2] == pytest.approx(START_HEIGHT_M)
    with pytest.raises(ObjectError, match="toy_car"):
        objects_of(TrialSetup(category="elephant"))


def test_bad_options_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="paper"):
        TrialsOptions(controller="best")
    with pytest.raises(ValueError, match="latency"):
        Disturbance(latency=-1)
    with pytest.raises(ValueError, match="whole"):
        SweepConfig(over="latency", values=(0.5,)).strengths()


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sim.trials", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def test_the_command_reports_every_scenario_and_any_number_of_workers_agrees(
    tmp_path: Path, model_file: Path
) -> None:
    """On a mesh of the user's own, with a network of random weights: all but good grasps."""
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    trimesh.creation.box((0.05, 0.12, 0.04)).export(meshes / "bar.stl")
    reports = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        done = command(
            *("--trials", 5, "--noise", 0.4, "--iterations", 4, "--candidates", 32, "--seed", 7),
            *("--meshes", meshes, "--model", model_file, "--workers", workers, "--out", out),
            *("--controller", "paper", "--label", "paper"),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.index("lifted") < done.stdout.index("median")
        assert "CTR_noise" in done.stdout and "bar" in (out / "trials.json").read_text()
        for picture in ("trials.png", "worst.png"):
            assert (out / picture).stat().st_size > 10_000
        reports.append(json.loads((out / "trials.json").read_text()))
    one, two = reports
    assert one["trials"] == two["trials"] and one["scenarios"] == two["scenarios"]
    for name in ("INIT", "CTR", "CTR_noise", "GPD", "GPD_noise"):
        scenario = one["scenarios"][name]
        assert scenario["n"] == 5
        for key in ("median_m", "mean_m", "p90_m", "ci95_m", "under_1cm", "under_2cm"):
            assert key in scenario
    assert one["scenarios"]["TRUE"]["median_m"] < 1e-6 < one["scenarios"]["TRUE_noise"]["median_m"]


def test_a_sweep_goes_on_where_it_was(tmp_path: Path, model_file: Path) -> None:
    arguments = (
        *("sweep", "--over", "latency", "--trials", 2, "--candidates", 16, "--workers", 1),
        *("--category", "can", "--model", model_file, "--out", tmp_path, "--no-lift"),
    )
    first = command(*arguments, "--values", 0)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "sweep.json"
    report = json.loads(path.read_text())
    report["points"][0]["scenarios"]["CTR"]["median_m"] = 0.123  # done, so it must stay
    path.write_text(json.dumps(report))
    second = command(*arguments, "--values", 0, 3)
    assert second.returncode == 0, second.stderr
    points = json.loads(path.read_text())["points"]
    assert [point["value"] for point in points] == [0, 3]
    assert points[0]["scenarios"]["CTR"]["median_m"] == 0.123
    assert set(points[1]["scenarios"]) == {"INIT", "CTR", "GPD", "MAP", "TRUE"}
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    other = command(*arguments, "--seed", 5)
    assert other.returncode == 2 and "seed" in other.stderr and "--out" in other.stderr


def test_what_the_user_got_wrong_is_said_in_one_line(tmp_path: Path, model_file: Path) -> None:
    for arguments, word in (
        (("--model", tmp_path / "none.onnx"), "none.onnx"),
        (("--category", "elephant", "--model", model_file), "elephant"),
        (("--noise", -1, "--model", model_file), "noise"),
        (("--experiment", "clutter", "--no-lift", "--model", model_file), "lifts"),
    ):
        done = command("--trials", 1, "--out", tmp_path / "o", *arguments)
        assert done.returncode in (1, 2) and word in done.stderr
        assert "Traceback" not in done.stderr


def test_a_trial_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bench: object, number: int) -> None:
        raise ValueError("actions reach 1.4 m; the limit is 1 m")

    monkeypatch.setattr(run, "run_trial", fails)
    monkeypatch.setattr(run, "_worker", SimpleNamespace(setup=TrialSetup(seed=4)), raising=False)
    with pytest.raises(ValueError, match="limit is 1 m") as caught:
        run._one(7)
    assert caught.value.__notes__ == ["in trial 7 of seed 4"]


def test_trials_take_objects_of_the_wide_catalogue_and_piles():
    setup = TrialSetup(experiment="clutter", catalogue="wide", pile=True, max_height_m=0.25)
    needed("physics", "mujoco")
    world = make_world(objects_of(setup), setup, 0)
    assert world.scene.bin is not None and len(world.scene.placed) > 4
    assert all(thing.name.startswith("wide_") for thing in world.scene.placed)
    with pytest.raises(ValueError, match="bin of its own"):
        TrialsOptions(pile=True, bin=True)
