"""rt.guard: every row acts at its limit, and not before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.guard.camera_watch import CameraPlace
from rt.guard.rows import ROWS, Action, CycleState, Guard, Hold, Limits, Stop
from rt.guard.settings import SettingsWatch
from rt.robot import RobotState
from rt.robot.kinematics import ARMS

PERIOD_S = 1 / 30
HERE = np.array([0.1, -0.1, 0.2, 0.5])


def situation(limits: Limits, **known: Any) -> CycleState:
    """Everything in order, but for what is named."""
    values: dict[str, Any] = {
        "hand": HERE.copy(),
        "commanded": HERE.copy(),
        "command": HERE + np.array([0.001, 0.001, -0.002, 0.01]),
        "view_filled": 1.0,
        "distances": np.float32([0.02, 0.05]),
    }
    return CycleState(limits, PERIOD_S, **{**values, **known})


def at(x: float, y: float, z: float) -> dict[str, Any]:
    """The hand is there, where it was told to be."""
    return {"hand": np.array([x, y, z, 0.5]), "commanded": np.array([x, y, z, 0.5])}


def posture(
    elbow: float = -90, wrist_3: float = 0, speed: float = 0, **more: Any
) -> dict[str, Any]:
    """The arm in a usual posture [deg], but for what is named; wrist 1 turns at `speed` [deg/s]."""
    q = np.radians([10, -90, elbow, -90, 90, wrist_3])
    qd = np.radians([0, 0, 0, -speed, 0, 0])
    return {"state": RobotState(0, np.eye(4), np.zeros(6), q=q, qd=qd), **more}


def told(settings: np.ndarray) -> dict[str, Any]:
    """The controller's settings."""
    return {"state": RobotState(0, np.eye(4), np.zeros(6), settings=settings)}


WHENS = tuple(dict.fromkeys(row.when for row in ROWS))


def check_all(guard: Guard, s: CycleState) -> None:
    for when in WHENS:
        guard.check(when, 7, s)


def test_nothing_happens_when_all_is_well() -> None:
    guard = Guard()
    s = situation(guard.limits)
    command = s.command.copy()
    check_all(guard, s)
    assert not guard.counts and not guard.events
    np.testing.assert_array_equal(s.command, command)


BAD: dict[str, tuple[type[Exception] | None, dict[str, Any]]] = {
    "wrong_model": (Stop, {"wrong_model": 1}),
    "reach": (Stop, {"out_of_reach": 1}),
    "joint_limit": (Stop, posture(wrist_3=351)),
    "joint_speed": (Stop, posture(speed=165)),
    "singularity": (Stop, posture(elbow=-9)),
    "operator_stop": (Stop, {"operator_stop": 1}),
    "target_age": (Stop, {"target_late_s": 0.11}),
    "force": (Stop, {"force_N": 51.0}),
    "torque": (Stop, {"torque_Nm": 10.1}),
    "tilt": (Stop, {"tilt_deg": 5.1}),
    "above_ceiling": (Stop, {"hand": np.array([0.1, -0.1, 0.63, 0.5])}),
    "intrinsics": (Stop, {"other_intrinsics": 1}),
    "same_view": (Hold, {"same_views": 3}),
    "implausible": (Stop, {"distances": np.float32([0.1, -0.2])}),
    "step": (Stop, {"command": HERE + np.array([0.15, 0.15, 0, 0])}),
    "rotation": (Stop, {"command": HERE + np.array([0, 0, 0, 3.2])}),
    "acceleration": (
        None,
        {"before": HERE - [0.0, 0.012, 0, 0], "command": HERE - [0, 0.012, 0, 0]},
    ),
    "missed_deadlines": (Stop, {"missed_in_a_row": 11}),
    "held_too_long": (Stop, {"held_s": 2.01}),
    "paused_too_long": (Stop, {"paused_s": 601.0}),
    "phase_time": (Stop, {"over_time_s": 0.1}),
    "state_age": (Stop, {"state_age_s": 0.11}),
    "outside_workspace": (Stop, {"hand": np.array([0.53, 0.0, 0.2, 0.0])}),
    "below_floor": (Stop, {"hand": np.array([0.1, -0.1, 0.07, 0.5])}),
    "following_error": (Stop, {"hand": np.array([0.21, -0.1, 0.2, 0.5])}),
    "frame_age": (Hold, {"frame_age_s": 0.16}),
    "exposure_gap": (Hold, {"exposure_gap_s": 0.03}),
    "view_filled": (Hold, {"view_filled": 0.4}),
    "camera_moved": (Hold, {"place": CameraPlace(tilt_deg=0.61)}),
    "controller_changed": (
        None,
        {"settings": np.array([1.0, 1.0, 1.2]), **told(np.array([0.6, 0.6, 2.0]))},
    ),
    "not_finite": (Stop, {"distances": np.float32([0.1, np.nan, 0.2])}),
    "flat_distances": (Hold, {"distances": np.float32([0.1, 0.1005])}),
    "late_command": (Stop, {"thought_s": 0.11}),
    "bad_command": (Stop, {"command": np.array([0.1, np.nan, 0.2, 0])}),
    "speed": (None, {"command": np.array([0.2, -0.1, 0.2, 0.5])}),
    "turn": (None, {"command": np.array([0.1, -0.1, 0.2, 0.1])}),
    "workspace": (None, {**at(0.499, -0.1, 0.2), "command": np.array([0.505, -0.1, 0.2, 0.5])}),
    "path": (None, {**at(0.1, -0.1, 0.2), "needed_m": lambda hand: 0.1895}),
    "floor": (None, {**at(0.1, -0.1, 0.102), "command": np.array([0.1, -0.1, 0.095, 0.5])}),
    "ceiling": (None, {**at(0.1, -0.1, 0.598), "command": np.array([0.1, -0.1, 0.605, 0.5])}),
}


def test_every_row_has_a_case_here() -> None:
    assert set(BAD) == {row.name for row in ROWS}


def test_the_page_on_bringing_up_has_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs/guard.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| (\w+) \| [\w ]+, at (\w+) (\S+) \|", page, re.MULTILINE)
    decision = [(r.name, r.action.value, r.at, str(r.limit)) for r in ROWS]
    assert [(name, action, at, limit.strip("`")) for name, action, at, limit in table] == decision


def wall(hand: np.ndarray) -> float:
    """A wall 0.22 m high beyond x = 0.12 m."""
    return 0.22 if hand[0] > 0.12 else 0.0


@pytest.mark.parametrize(
    ("here", "to", "goes"),
    [
        ((0.13, 0.235), (0.13, 0.225), (0.13, 0.23)),  # no deeper
        ((0.13, 0.235), (0.14, 0.225), (0.14, 0.23)),  # no deeper, but on to the side
        ((0.119, 0.24), (0.121, 0.235), (0.121, 0.235)),  # high enough: over it
        ((0.119, 0.20), (0.121, 0.199), (0.119, 0.20 + 0.1 / 30)),  # in front of it: up
        ((0.119, 0.2299), (0.121, 0.229), (0.119, 0.23)),  # up as far as is needed
        ((0.13, 0.20), (0.13, 0.199), (0.13, 0.20 + 0.1 / 30)),  # something came under it: up
    ],
)
def test_the_hand_keeps_clear_of_what_the_views_have_shown(
    here: tuple[float, float], to: tuple[float, float], goes: tuple[float, float]
) -> None:
    hands = {"commanded": here, "hand": here, "command": to}
    known = {name: np.array([x, 0.0, z, 0.5]) for name, (x, z) in hands.items()}
    s = situation(Limits(), needed_m=wall, **known)
    Guard().check("command", 7, s)
    np.testing.assert_allclose(s.command[[0, 2]], goes, atol=1e-9)
    assert s.lack_m(s.command) <= 1e-9 or s.command[2] > s.commanded[2]


@pytest.mark.parametrize("name", BAD)
def test_each_row_acts_and_is_recorded_by_its_name(name: str) -> None:
    raised, known = BAD[name]
    guard = Guard()
    s = situation(guard.limits, **known)
    action = next(row for row in ROWS if row.name == name).action
    if raised is None:
        check_all(guard, s)
        assert action in (Action.CLAMP, Action.WARN)
    else:
        with pytest.raises(raised, match=f"^{name}: "):
            check_all(guard, s)
    assert guard.counts[name] == 1
    event = next(e for e in guard.events if e["name"] == name)
    assert event["cycle"] == 7
    assert event["action"] == (action if raised is None else raised.__name__.lower())


def test_a_setting_is_told_once_it_stays_with_both_values() -> None:
    """The slider is drawn down, then the payload is changed; the scaling flickers."""
    guard, watch = Guard(), SettingsWatch()
    sliders = [*np.linspace(1, 0.6, 10), *[0.6] * 40]
    for k, slider in enumerate(sliders):
        now = np.array([slider, slider - 0.1 * (k % 2), 2.0 if k > 30 else 1.2])
        guard.check("input", k, situation(guard.limits, settings=watch.before(now), **told(now)))
    said = [event["said"] for event in guard.events]
    assert len(said) == 2 and "slider went from 100% to 60%" in said[0]
    assert "payload went from 1.2 to 2 kg" in said[1] and "slider" not in said[1].partition(";")[0]


@pytest.mark.parametrize("quantity", ["frame_age_s", "state_age_s", "view_filled"])
def test_what_is_not_a_number_is_beyond_every_limit(quantity: str) -> None:
    guard = Guard()
    with pytest.raises((Hold, Stop)):
        check_all(guard, situation(guard.limits, **{quantity: float("nan")}))


def test_the_last_centimetres_have_a_floor_of_their_own() -> None:
    """There the hand may go down to the table, and is stopped below it."""
    guard = Guard()
    low = situation(guard.limits, **at(0.1, -0.1, 0.01), floor_m=0.002)
    low.command = np.array([0.1, -0.1, 0.0, 0.5])
    check_all(guard, low)
    assert low.command[2] == 0.002 and set(guard.counts) == {"floor"}
    with pytest.raises(Stop, match="below_floor"):
        check_all(guard, situation(guard.limits, **at(0.1, -0.1, -0.001), floor_m=0.002))
    with pytest.raises(Stop, match="below_floor"):
        check_all(guard, situation(guard.limits, **at(0.1, -0.1, 0.01)))


def test_a_clamped_acceleration_changes_the_last_motion_by_no_more_than_allowed() -> None:
    guard = Guard()
    s = situation(guard.limits, before=HERE - [0.010, 0, 0, 0], command=HERE - [0.015, 0, 0, 0])
    guard.check("command", 0, s)
    assert s.command_acceleration_m_s2 == pytest.approx(guard.limits.max_acceleration_m_s2)
    assert guard.counts == {"acceleration": 1}
    np.testing.assert_allclose(s.command[1:], HERE[1:])


def test_the_joint_is_named_and_its_own_limits_hold() -> None:
    guard = Guard()
    with pytest.raises(Stop, match=r"joint_limit: 9 deg.*\(wrist 3 at 351 deg\)"):
        guard.check("input", 0, situation(guard.limits, **posture(wrist_3=351)))
    with pytest.raises(Stop, match=r"singularity: 9 deg.*\(elbow: the arm is nearly stretched"):
        guard.check("input", 0, situation(guard.limits, **posture(elbow=9)))
    narrow = Limits(joint_min_deg=(-360, -360, -100, -360, -360, -360))
    with pytest.raises(Stop, match=r"joint_limit: 5 deg.*\(elbow at -95 deg\)"):
        Guard(narrow).check("input", 0, situation(narrow, **posture(elbow=-95)))
    Guard(narrow).check("input", 0, situation(narrow, **posture(elbow=-89)))


def test_each_model_has_its_own_joint_speeds() -> None:
    guard, quick = Guard(), posture(speed=170)
    guard.check("input", 0, situation(guard.limits, arm=ARMS["UR3e"], **quick))
    for arm in (ARMS["UR5e"], None):
        with pytest.raises(Stop, match=r"joint_speed: 0.9444 of its most.*\(wrist 1\)"):
            guard.check("input", 0, situation(guard.limits, arm=arm, **quick))


def test_an_arm_that_tells_no_joints_is_not_judged_by_them() -> None:
    guard = Guard()
    state = RobotState(0, np.eye(4), np.zeros(6))
    check_all(guard, situation(guard.limits, state=state))
    assert not guard.counts
    q = np.array([0, 0, np.nan, 0, 1, 0])
    with pytest.raises(Stop):
        check_all(guard, situation(guard.limits, state=RobotState(0, np.eye(4), np.zeros(6), q=q)))


def test_what_is_known_of_a_stop_is_said() -> None:
    guard = Guard()
    s = situation(guard.limits, wrong_model=1, details={"wrong_model": "hand.opening_m: 0.1"})
    with pytest.raises(Stop, match=r"wrong_model: 1 refusal.*\(hand.opening_m: 0.1\); nothing"):
        guard.check("start", 0, s)


@given(
    st.tuples(*[st.floats(-0.11, 0.11)] * 3, st.floats(-3, 3)).map(np.array),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.1, 0.4), st.floats(-7, 7)),
)
def test_a_clamped_command_is_within_every_limit(
    move: np.ndarray, at: tuple[float, float, float, float]
) -> None:
    guard = Guard()
    commanded = np.array(at)
    command = commanded + move
    s = situation(guard.limits, hand=commanded, commanded=commanded.copy(), command=command)
    guard.check("command", 0, s)
    limits = guard.limits
    assert np.linalg.norm(s.command[:3] - commanded[:3]) <= limits.max_speed_m_s * PERIOD_S * (
        1 + 1e-6
    )
    assert np.degrees(abs(s.command[3] - commanded[3])) <= limits.max_turn_deg_s * PERIOD_S * (
        1 + 1e-6
    )
    rounding = 1e-9  # what the guard lets through, relative to a limit's size
    assert (np.abs(s.command[:2]) <= 0.5 + rounding).all()
    assert s.command[2] >= limits.min_height_m - rounding
    once = s.command.copy()
    again = Guard()
    again.check("command", 0, s)
    np.testing.assert_array_equal(s.command, once)
    assert not again.counts


def test_events_are_bounded_but_counted() -> None:
    guard = Guard(remembered=5)
    s = situation(guard.limits, frame_age_s=1.0)
    for _ in range(20):
        with pytest.raises(Hold):
            guard.check("frame", 0, s)
    assert len(guard.events) == 5 and guard.counts["frame_age"] == 20


@pytest.mark.parametrize(
    "bad",
    [
        {"max_speed_m_s": -1.0},
        {"max_frame_age_s": float("nan")},
        {"joint_max_deg": (360, 360, -350, 360, 360, 360)},
        {"joint_min_deg": (float("inf"),) * 6},
    ],
)
def test_impossible_limits_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Limits(**bad)


def commanded_for(seconds: float, guard: Guard, **known: Any) -> str:
    """Repeat one command; the message of the Stop that ends it, or nothing."""
    try:
        for cycle in range(round(seconds / PERIOD_S)):
            guard.check("command", cycle, situation(guard.limits, **known))
    except Stop as stop:
        return str(stop)
    return ""


@pytest.mark.parametrize("name", ["workspace", "floor", "ceiling"])
def test_a_clamp_to_a_place_that_lasts_is_a_stop_with_its_name(name: str) -> None:
    guard = Guard()
    assert commanded_for(1.9, guard, **BAD[name][1]) == ""
    assert re.match(
        f"{name}: commands clamped for 2 s, must be at most 2 s",
        commanded_for(2.2, guard, **BAD[name][1]),
    )
    assert guard.events[-1]["name"] == name and guard.events[-1]["action"] == "stop"


def test_a_clamp_that_ends_in_between_counts_anew() -> None:
    guard = Guard()
    for _ in range(3):
        assert commanded_for(1.5, guard, **BAD["floor"][1]) == ""
        guard.check("command", 0, situation(guard.limits))


def test_a_slow_speed_goes_on_and_no_speed_is_a_stop() -> None:
    slow, none = Guard(Limits(max_speed_m_s=0.02)), Guard(Limits(max_speed_m_s=0.0))
    down = {"command": HERE - [0, 0, 0.002, 0], "before": HERE - [0, 0, -0.002, 0]}
    assert commanded_for(5.0, slow, **down) == "" and slow.counts["speed"] > 100
    assert re.match(
        "speed: commands clamped for .* nothing moves", commanded_for(5.0, none, **down)
    )
