"""Clearing: scenes that go on after a pick, their ends, pushes, walls and statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from solids import box

from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim.experiment.clearing import MISSES, _again, _clear
from sim.experiment.disturbance import CONTROL_HZ, PUSH_M, PUSH_M_S, Disturbance, TrialChance
from sim.experiment.ending import Ending
from sim.experiment.run import TrialsOptions
from sim.experiment.statistics import compare, share_interval, summary
from sim.experiment.trial import Approach, TrialSetup, World, once, reach, servo
from sim.physics.lift import lift
from sim.scene.bin import OpenBin
from sim.scene.grasps import true_grasps
from sim.scene.render import Renderer
from sim.scene.scene import Scene, assemble, rearranged

HAND = load_hand()
SETUP = TrialSetup(experiment="clutter", baselines=("TRUE",))


def bars(*places: tuple[float, float], around: OpenBin | None = None) -> Scene:
    """Bars of 4 x 10 x 4 cm at (x, y) on the table."""
    things = []
    for x, y in places:
        T = np.eye(4)
        T[:3, 3] = (x, y, 0.02)
        things.append((box((0.04, 0.10, 0.04)), T))
    return assemble(things, around)


def world_of(scene: Scene) -> World:
    grasps = true_grasps(scene, np.random.default_rng(0), HAND, samples=500)
    return World(scene, grasps, Renderer(scene), np.array([0.02, 0.01, 0.30, 0.2]), HAND)


def chance(**disturbance: Any) -> TrialChance:
    return TrialChance(Disturbance(**disturbance), 0, 0, 75)


def true_way(world: World, eye: Any, fate: TrialChance) -> Approach:
    return reach(world, once("TRUE", world, eye, fate, None, None), fate, False, SETUP)  # type: ignore[arg-type]


def test_true_grasps_clear_the_scene_and_misses_end_it() -> None:
    first = world_of(bars((-0.08, 0.0), (0.08, 0.0)))
    done = _clear(first, true_way, SETUP, 0)
    assert (done["cleared"], done["of"], done["reason"]) == (2, 2, "empty")
    assert [pick["lifted"] for pick in done["picks"]] == [True, True]
    assert done["picks"][1]["grasps"] > 0

    def beside(world: World, eye: Any, fate: TrialChance) -> Approach:
        return Approach(np.array([[0.3, 0.3, 0.30, 0.0], [0.3, 0.3, 0.15, 0.0]]))

    missed = _clear(first, beside, SETUP, 0)
    assert len(missed["picks"]) == MISSES and missed["reason"] == "two misses"
    assert {pick["why"] for pick in missed["picks"]} == {"missed"}


def test_a_wrong_object_is_counted() -> None:
    first = world_of(bars((-0.08, 0.0), (0.08, 0.0)))
    wanted = replace(SETUP, target=True)
    done = _clear(first, true_way, wanted, 0)
    assert done["cleared"] == 2 and [pick["wrong"] for pick in done["picks"]] == [False, False]

    def other(world: World, eye: Any, fate: TrialChance) -> Approach:
        assert world.target is not None and world.target_xy_m is not None
        rest = [k for k in range(len(world.scene.placed)) if k != world.target]
        return true_way(replace(world, target=rest[0] if rest else world.target), eye, fate)

    wrong = _clear(first, other, wanted, 0)
    assert [pick["wrong"] for pick in wrong["picks"]] == [True, False]


def test_a_scene_goes_on_from_where_the_physics_leaves_it() -> None:
    scene = bars((0.0, 0.0), (0.12, 0.0))
    away = lift(scene, (0.3, 0.3, 0.01, 0.0), HAND, settle=True)
    assert away.objects == () and away.reason == "missed"
    np.testing.assert_allclose(away.T_world_object[1][:3, 3], (0.12, 0, 0.02), atol=2e-3)
    same = rearranged(scene, np.stack([p.T_world_object for p in scene.placed]), [0, 1])
    np.testing.assert_allclose(same.vertices, scene.vertices, atol=1e-7)
    np.testing.assert_array_equal(same.faces, scene.faces)
    T = away.T_world_object.copy()
    T[1, :3, 3] += (0.0, 0.05, 0.0)
    one = rearranged(scene, T, [1])
    assert len(one.placed) == 1 and set(one.face_object) == {0}
    assert one.vertices[:, 1].max() == pytest.approx(0.10, abs=3e-3)
    again = _again(one, HAND, chance())
    assert len(again.grasps) and set(again.grasps.object) == {0}


def test_what_lay_on_a_lifted_object_falls() -> None:
    """It came up with the hand, and would else float in the next scene."""
    rod = np.eye(4)
    rod[2, 3] = 0.04
    scene = assemble([(box((0.04, 0.10, 0.04)), np.eye(4)), (box((0.01, 0.06, 0.01)), rod)])
    done = lift(scene, (0.0, 0.0, 0.01, 0.0), HAND, settle=True)
    assert done.objects == (0,) and done.T_world_object[0, 2, 3] > 0.1
    assert done.T_world_object[1, 2, 3] == pytest.approx(0, abs=2e-3)
    left = rearranged(scene, done.T_world_object, [1])
    assert left.vertices[:, 2].min() == pytest.approx(0, abs=2e-3)


def test_a_camera_that_sees_nothing_holds_the_hand() -> None:
    world, views = world_of(bars((0.0, 0.0))), iter(range(100))

    class Blink:
        def view(self, hand: np.ndarray) -> np.ndarray:
            seen = world.renderer.depth(top_down(*hand), VIEW.rays())
            return seen if next(views) % 5 else np.zeros_like(seen)

    def near(view: np.ndarray, actions: np.ndarray) -> np.ndarray:
        assert view.any()
        return np.hypot(actions[:, 0], actions[:, 1]).astype(np.float32)

    done = servo("paper", world, Blink(), chance(), False, near, SETUP)  # type: ignore[arg-type]
    assert len(done.path) == 1 + SETUP.iterations
    np.testing.assert_array_equal(done.path[0], done.path[1])
    assert done.path[-1, 2] == pytest.approx(0.15 + 0.15 * 15 / 75, abs=1e-9)


def test_objects_are_pushed_once_by_their_way_and_at_their_speed() -> None:
    hand = np.zeros(4)
    ways = []
    for pick in range(1, 40):
        fate = TrialChance(Disturbance(), 1, 2, 75, pick=pick, pushed=True)
        way = [float(np.linalg.norm(fate.to_objects(hand, k)[:2])) for k in range(76)]
        assert way[0] == 0 and np.max(np.diff(way)) <= PUSH_M_S / CONTROL_HZ + 1e-12
        ways.append(way[-1])
    assert PUSH_M[0] <= min(ways) < 0.035 and 0.065 < max(ways) <= PUSH_M[1]
    assert TrialChance(Disturbance(), 1, 2, 75, pick=1).push_m == 0


def test_a_hand_inside_and_a_finger_on_a_wall_are_seen() -> None:
    world = world_of(bars((0.0, 0.0), around=OpenBin((0.30, 0.30), 0.16, 0.01, 0.3)))
    judge = Ending(world, replace(SETUP, bin=True, lift=False), chance())
    free = np.array([[0.0, 0.0, 0.30, 0.0], [0.0, 0.0, 0.15, 0.0]])
    ended, _ = judge(Approach(free))
    assert not ended["inside"] and not ended["on_wall"]
    c, s = np.cos(0.3), np.sin(0.3)
    middle = 0.155 - (HAND.opening_m + HAND.finger_thickness_m) / 2
    over = free + np.array([middle * c, middle * s, 0.0, 0.3])
    ended, _ = judge(Approach(over))
    assert ended["inside"] and ended["on_wall"]  # down to 0.15 m, into a wall of 0.16 m
    low = world_of(bars((0.0, 0.0), around=OpenBin((0.30, 0.30), 0.10, 0.01, 0.3)))
    ended, _ = Ending(low, replace(SETUP, bin=True, lift=False), chance())(Approach(over))
    assert not ended["inside"] and ended["on_wall"]


def test_a_grasp_that_the_label_turns_down_and_the_physics_holds_is_near() -> None:
    """Far from the middle of a long light bar: the lever is longer than the label lets through."""
    T = np.eye(4)
    T[2, 3] = 0.015
    world = world_of(assemble([(box((0.03, 0.30, 0.03)), T)]))
    assert np.abs(world.grasps.poses[:, 1]).max() < 0.081
    end = Approach(np.array([[0.0, 0.11, 0.30, 0.0], [0.0, 0.11, 0.15, 0.0]]))
    one = replace(SETUP, experiment="single")
    paper, _ = Ending(world, replace(one, label="paper"), chance())(end)
    lifted, done = Ending(world, replace(one, label="lifted"), chance())(end)
    assert paper["distance_m"] > 0.025
    assert done is not None and done.success
    assert lifted["distance_m"] < 0.015


def test_on_a_conveyor_a_lift_needs_the_velocity() -> None:
    world = world_of(bars((0.0, 0.0)))
    fate = chance(conveyor=0.25)
    judge = Ending(world, replace(SETUP, disturbance=fate.disturbance), fate)
    path = np.array([[0.0, 0.0, 0.30, 0.0], [0.0, 0.0, 0.15, 0.0]])
    assert not judge(Approach(path))[0]["lifted"]
    assert judge(Approach(path, fate.velocity_m_s))[0]["lifted"]


def picks(*scenes: tuple[int, int]) -> list[dict[str, Any]]:
    """Trials of scenario `a`: (lifted, missed) each, of ten objects."""
    return [
        {
            "final": {
                "a": {
                    "picks": [
                        {
                            "distance_m": 0.001 if k < held else None,
                            "lifted": k < held,
                            "inside": False,
                        }
                        for k in range(held + missed)
                    ],
                    "cleared": held,
                    "of": 10,
                }
            }
        }
        for held, missed in scenes
    ]


def test_shares_are_over_picks_and_intervals_over_scenes() -> None:
    trials = picks((10, 0), (8, 2), (10, 1), (3, 2))
    s = summary(trials, "a")
    assert s["n"] == 36 and s["lifted"] == pytest.approx(31 / 36)
    assert s["cleared"] == pytest.approx(31 / 40) and s["emptied"] == 0.5
    assert s["possible"] == 31 and s["lifted_possible"] == 1
    assert s["lifted_ci95"][0] < s["lifted"] < s["lifted_ci95"][1]
    wide = share_interval(np.array([10.0, 0.0] * 20), np.array([10.0] * 40))
    independent = share_interval(np.tile([1.0, 0.0], 200), np.ones(400))
    assert wide[1] - wide[0] > 2 * (independent[1] - independent[0])
    assert share_interval(np.array([5.0]), np.array([5.0]))[0] < 0.8  # all lifted proves little
    both = [{"final": {**t["final"], "b": t["final"]["a"]}} for t in trials]
    assert compare(both, "a", "b")["lifted_difference"] == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"experiment": "moved", "lift": False}, "lifts"),
        ({"experiment": "single", "clutter": 3}, "one object"),
        ({"target": True}, "clutter and moved"),
        ({"max_height": 0.5}, "max_height"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        TrialsOptions(**options)
