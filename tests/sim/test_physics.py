"""Lifts: simple solids are held where mechanics says so, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import manifold3d
import numpy as np
import pytest
from needs import needed
from scipy.spatial import ConvexHull
from solids import box, solid

from rt.hand import load_hand, load_tip_travel
from sim.scene.grasps import true_grasps
from sim.scene.objects import Object
from sim.scene.render import Renderer
from sim.scene.scene import Scene, assemble

needed("physics", "mujoco", "coacd")

from sim.physics.convex import cache_folder, convex_parts
from sim.physics.lift import LIFT_M, PhysicsError, approach_height, lift

HAND = load_hand()


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def scene_of(*objects: Object, at: list[tuple[float, float]] | None = None) -> Scene:
    poses = []
    for x, y in at or [(0.0, 0.0)] * len(objects):
        T = np.eye(4)
        T[:2, 3] = x, y
        poses.append(T)
    return assemble(list(zip(objects, poses, strict=True)))


def mug() -> Object:
    """Walls of 4 mm, 76 mm across, 80 mm high."""
    outside = manifold3d.Manifold.cylinder(0.08, 0.038, 0.038, 32)
    inside = manifold3d.Manifold.cylinder(0.08, 0.034, 0.034, 32).translate((0, 0, 0.005))
    return solid(outside - inside)


BAR = scene_of(box((0.05, 0.16, 0.04)))
BALL = scene_of(solid(manifold3d.Manifold.sphere(0.035, 48).translate((0, 0, 0.035))))
CAN = scene_of(solid(manifold3d.Manifold.cylinder(0.10, 0.03, 0.03, 48)))
# Sides 60 degrees from the table: they press the pads out of their cone below a friction of 0.58.
CONE = scene_of(solid(manifold3d.Manifold.cylinder(0.05, 0.0289, 0.0001, 48)))
WIDE = scene_of(box((0.12, 0.12, 0.05)))
MUG = scene_of(mug())

GOOD = {
    "a bar across its middle": (BAR, (0, 0, 0.01, 0), {}),
    "a bar by its end": (BAR, (0, 0.068, 0.01, 0), {}),
    "a bar beside the middle of the hand": (BAR, (0.012, 0, 0.01, 0), {}),
    "a bar askew": (BAR, (0, 0, 0.01, 0.12), {}),
    "a ball at its equator": (BALL, (0, 0, 0.024, 0.7), {}),
    "a standing can": (CAN, (0, 0, 0.045, 2.0), {}),
    "a cone that friction holds": (CONE, (0, 0, 0.003, 0), {"friction": 1.2}),
    "a mug's rim": (MUG, (0.036, 0, 0.04, 0), {}),
    "a mug across": (MUG, (0, 0, 0.03, 0.4), {}),
}
BAD = {
    "beside the bar": (BAR, (0.0, 0.12, 0.01, 0), {}, "missed"),
    "nothing there": (BAR, (0.3, 0.3, 0.01, 0), {}, "missed"),
    "along the bar": (BAR, (0, 0, 0.01, np.pi / 2), {}, "collided"),
    "wider than the hand": (WIDE, (0, 0, 0.02, 0), {}, "collided"),
    "into the table": (BAR, (0, 0, -0.02, 0), {}, "collided"),
    "above the ball's equator": (BALL, (0, 0, 0.052, 0), {}, "slipped"),
    "a cone that slips": (CONE, (0, 0, 0.003, 0), {"friction": 0.3}, "slipped"),
    "a bar without friction": (BAR, (0, 0, 0.02, 0), {"friction": 0.005}, "slipped"),
    "a bar too heavy for a weak grip": (BAR, (0, 0, 0.01, 0), {"force_N": 1.0}, "slipped"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_grasps_hold(name):
    scene, pose, options = GOOD[name]
    done = lift(scene, pose, **options)
    assert done.success and done.reason == "held" and done.object == 0
    assert done.height_m == pytest.approx(LIFT_M, abs=0.01)


@pytest.mark.parametrize("name", BAD)
def test_bad_grasps_fail_for_the_right_reason(name):
    scene, pose, options, reason = BAD[name]
    done = lift(scene, pose, **options)
    assert not done.success and done.reason == reason and done.object is None
    assert done.height_m < 0.5 * LIFT_M


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_half_the_time_step_changes_nothing(name):
    scene, pose, options = {**GOOD, **BAD}[name][:3]
    whole = lift(scene, pose, **options)
    half = lift(scene, pose, time_step_s=0.001, **options)
    assert (half.success, half.reason, half.object) == (whole.success, whole.reason, whole.object)
    if whole.success:
        assert half.height_m == pytest.approx(whole.height_m, abs=1e-3)


def test_the_same_lift_twice_is_the_same_to_the_bit():
    pose = (0.01, 0.03, 0.01, 0.1)
    first = lift(BAR, pose)
    lift(BAR, (0.0, -0.05, 0.01, 0.0))  # another one between, on the same model
    again = scene_of(box((0.05, 0.16, 0.04)))  # and a model of its own
    for other in (lift(BAR, pose), lift(again, pose)):
        for name, value in vars(first).items():
            assert np.array_equal(getattr(other, name), value), name


def test_the_object_lifted_is_named():
    scene = scene_of(box((0.04, 0.04, 0.05)), box((0.03, 0.05, 0.06)), at=[(0, 0), (0.15, 0)])
    assert lift(scene, (0, 0, 0.02, 0)).object == 0
    done = lift(scene, (0.15, 0, 0.03, 0))
    assert done.object == 1 and done.height_m == pytest.approx(LIFT_M, abs=0.01)


def test_a_leaning_object_waits_for_the_hand():
    """It would topple long before the hand is there; it is met as it leans."""
    thing = box((0.03, 0.03, 0.10))
    angle = np.radians(25)
    T = np.eye(4)
    T[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    T[2, 3] = 0.015 * np.sin(angle)
    scene = assemble([(thing, T)])
    middle = float(scene.vertices[:, 1].mean())
    done = lift(scene, (0, middle, 0.04, 0))
    assert done.success
    # Seen from a hand that never touched it, it has not moved at all.
    assert lift(scene, (0.2, 0, 0.04, 0)).height_m == 0.0


def test_lifts_ask_for_what_can_be_done():
    for pose, options, words in (
        ((0, 0, np.nan, 0), {}, "finite"),
        ((0, 0, 0.01, 0), {"force_N": 500.0}, "235 N"),
        ((0, 0, 0.01, 0), {"friction": -0.1}, "friction"),
        ((0, 0, 0.01, 0), {"time_step_s": 0.02}, "time step"),
    ):
        with pytest.raises(PhysicsError, match=words):
            lift(BAR, pose, **options)


def test_approach_height_puts_the_pads_where_the_object_is_widest():
    ball = Renderer(BALL)
    pad = HAND.pad_height_m
    assert approach_height(BALL, ball, 0, 0, 0.3) == pytest.approx(0.035 - pad / 2, abs=0.002)
    # A tall can: as deep as the palm allows, 2 mm of margin; a low bar: in its middle, or on the table.
    top, finger = 0.10, HAND.finger_length_m
    assert approach_height(CAN, Renderer(CAN), 0, 0, 0) == pytest.approx(
        top + 0.002 - finger, abs=2e-3
    )
    low = scene_of(box((0.05, 0.10, 0.01)))
    assert approach_height(low, Renderer(low), 0, 0, 0) == pytest.approx(0.003, abs=1e-6)
    # Fingers over a box wider than the hand stay above it.
    assert approach_height(WIDE, Renderer(WIDE), 0, 0, 0) == pytest.approx(0.052, abs=1e-3)
    # Astride a wall: inside the mug the floor is 5 mm up, and the palm meets the rim first.
    z = approach_height(MUG, Renderer(MUG), 0.036, 0, 0)
    assert z == pytest.approx(0.08 + 0.002 - finger, abs=2e-3)
    assert lift(MUG, (0.036, 0, z, 0)).success


@pytest.mark.parametrize("scene", [BAR, BALL, CAN, MUG], ids=["bar", "ball", "can", "mug"])
def test_a_hand_at_its_approach_height_collides_with_nothing(scene):
    """Wherever it is; true grasps are also as free as their labels say."""
    rng, renderer = np.random.default_rng(0), Renderer(scene)
    poses = np.column_stack([rng.uniform(-0.06, 0.06, (6, 2)), rng.uniform(-1.5, 1.5, 6)])
    for x, y, yaw in poses:
        z = approach_height(scene, renderer, x, y, yaw)
        assert lift(scene, (x, y, z, yaw)).reason != "collided"


def test_true_grasps_of_a_mug_hold():
    grasps = true_grasps(MUG, np.random.default_rng(0), HAND, samples=500)
    some = grasps.poses[np.random.default_rng(1).choice(len(grasps), 12, replace=False)]
    assert sum(lift(MUG, pose[:4]).success for pose in some) >= 11


def test_convex_parts_keep_the_cavity_and_the_walls():
    thing = mug()
    parts = convex_parts(thing.vertices, thing.faces)
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.05, -0.05, 0], [0.05, 0.05, 0.09], (20000, 3))
    r, z = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    inside = np.zeros(len(points), bool)
    for part in parts:
        planes = ConvexHull(part).equations
        inside |= (points @ planes[:, :3].T + planes[:, 3] <= 0).all(axis=1)
    cavity = (r < 0.031) & (z > 0.008)
    wall = (r > 0.0352) & (r < 0.0372) & (z > 0.01) & (z < 0.078)
    assert inside[cavity].mean() < 0.01
    assert inside[wall].mean() > 0.98


def test_convex_parts_are_made_once_whatever_the_pose(monkeypatch):
    thing = solid(manifold3d.Manifold.cylinder(0.05, 0.02, 0.01, 16))
    parts = convex_parts(thing.vertices, thing.faces)
    monkeypatch.setattr("sim.physics.convex._decompose", lambda *_: pytest.fail("made again"))
    noisy = thing.vertices + np.float32(1e-7)
    again = convex_parts(noisy, thing.faces)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    # Another solid of the same faces is another one.
    with pytest.raises(pytest.fail.Exception):
        convex_parts(thing.vertices * np.float32(1.1), thing.faces)
    assert not [p for p in cache_folder().rglob("*") if p.is_file() and p.suffix != ".npz"]


def test_two_processes_share_the_cache(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from solids import box; "
        "from sim.physics.convex import convex_parts as c; b = box((.03, .04, .05)); "
        "print(sum(map(len, c(b.vertices, b.faces))))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, env=environment, stdout=-1)
        for _ in range(2)
    ]
    assert [p.communicate()[0].split() for p in both] == [[b"8"]] * 2
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


@pytest.mark.parametrize("module", ["mujoco", "coacd"])
def test_without_the_extra_the_error_names_it(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    options = ["--scenes", "1", "--workers", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "sim.lifts", *options],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "grasp-servo[physics]" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("thing", [BAR, CAN], ids=["bar", "can"])
def test_tips_that_travel_hold_what_level_ones_hold(thing: Scene) -> None:
    tips = load_tip_travel()
    width_m, z_m = (0.05, 0.01) if thing is BAR else (0.06, 0.05)
    done = lift(thing, (0.0, 0.0, z_m, 0.0), HAND, tips=tips, width_m=width_m)
    assert done.reason == "held" and done.height_m == pytest.approx(LIFT_M, abs=0.01)


def test_the_tips_in_the_model_travel_as_the_hand_file_says() -> None:
    from sim.physics.lift import _model, _Trial

    tips = load_tip_travel()
    trial = _Trial(_model(WIDE, HAND, 0.5, 40.0, 0.002, tips), WIDE, HAND)
    trial.run(0.3, 0.3, 0.03, 0.0)  # beside the box: closes on nothing
    down = float(trial.data.joint("left.z").qpos[0])
    closed = float(trial.data.joint("left").qpos[0])
    assert closed == pytest.approx(HAND.opening_m / 2, abs=0.001)
    assert down == pytest.approx(tips(HAND.opening_m - 2 * closed), abs=0.001)
