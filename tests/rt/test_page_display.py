"""rt.page without a browser: scene, arm, lamps, banner, charts and player tell the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from needs import needed
from pages import GOAL, HEADER, STAGES, record, view_of_a_box

from rt.pose import top_down
from rt.record.schema import BLANK
from rt.view import END_HEIGHT_M

needed("view", "viser")


def test_the_cloud_lies_where_the_table_is() -> None:
    from rt.page.scene import cloud

    hand = np.array([0.1, -0.2, 0.27, 0.7])
    points, far = cloud(view_of_a_box(hand))
    T = top_down(*hand)
    height = points @ T[2, :3] + T[2, 3]
    assert np.all((abs(height) < 1e-6) | (abs(height - 0.05) < 1e-6)) and far == np.float32(0.27)


def test_the_way_ahead_leads_from_the_command_to_the_goal_at_the_end_height() -> None:
    from rt.page.scene import way_ahead

    command = np.array([0.0, 0.0, 0.28, 0.0])
    way = way_ahead(command, GOAL, 0.2, 0.003)
    assert np.allclose(way[0, 0], command[:3], atol=1e-7)
    assert np.allclose(way[-1, 1], [*GOAL[:2], END_HEIGHT_M], atol=1e-5)
    assert np.array_equal(way[1:, 0], way[:-1, 1])
    assert len(way_ahead(command, np.full(4, np.nan), 0.2, 0.003)) == 0


def test_the_arm_is_found_by_its_name_or_by_its_joints_and_its_links_meet() -> None:
    from rt.page.arm import links, mounting
    from rt.pose import inverse
    from rt.robot.kinematics import ARMS, joint_frames

    model, q = ARMS["UR10e"], np.radians([20.0, -80, 95, -105, -90, 30])
    T_robot_base, T_flange_hand = np.eye(4), np.eye(4)
    T_robot_base[:3, 3], T_flange_hand[2, 3] = (0.1, -0.2, -0.3), 0.163
    frames = joint_frames(model, q)
    T_base_hand = inverse(T_robot_base) @ frames[6] @ T_flange_hand
    cell = {"T_robot_table": T_robot_base.tolist(), "T_flange_hand": T_flange_hand.tolist()}
    for decision in ({}, {"controller": {"arm": "UR10e"}}, {"controller": {"arm": "unknown"}}):
        found = mounting({"cell": {**cell, **decision}}, q, T_base_hand)
        assert found is not None and found.model == model
        assert np.allclose(found.T_base_robot[:3, 3], [-0.1, 0.2, 0.3])
    assert mounting({"cell": {"name": "twin"}}, q, T_base_hand) is None
    assert mounting({"cell": cell}, np.full(6, np.nan), T_base_hand) is None
    # From the base to the flange each bar begins where one before it ended, at any joints.
    reached = [np.zeros(3)]
    for T, bars in zip(frames, links(model), strict=True):
        for a, b, radius, _ in bars:
            begin, end = (T[:3, :3] @ p + T[:3, 3] for p in (a, b))
            assert min(np.linalg.norm(begin - p) for p in reached) < 1e-9 and radius > 0.02
            reached += [begin, end]
    assert np.allclose(reached[-1], frames[6, :3, 3])


def test_a_lamp_is_green_until_its_row_interferes_and_then_remembers() -> None:
    from rt.page.panel import AMBER, GREEN, RECENT_CYCLES, RED, Lamps, guard_rows

    lamps = Lamps(guard_rows(HEADER))
    names = [name for name, _ in lamps.rows]
    clamp, stop = names.index("speed"), names.index("following_error")
    lamps.see(record(0)[0])
    assert {colour for _, colour, _, _ in lamps.states()} == {GREEN}
    row = record(1)
    row["guard_counts"][0, clamp] = 1
    lamps.see(row[0])
    assert lamps.states()[clamp][1:] == (AMBER, True, 1)
    row["cycle"] = 1 + RECENT_CYCLES
    row["guard_counts"][0, stop] = 1
    lamps.see(row[0])
    assert lamps.states()[clamp][1:] == (AMBER, False, 1)
    assert lamps.states()[stop][1:] == (RED, True, 1)
    assert "speed" in lamps.html()
    lamps.see(record(0)[0])  # another run
    assert {colour for _, colour, _, _ in lamps.states()} == {GREEN}


def test_a_page_that_comes_late_does_not_light_what_is_long_past() -> None:
    from rt.page.panel import AMBER, Lamps

    lamps = Lamps([("speed", "clamp")])
    row = record(500)
    row["guard_counts"][0, 0] = 3
    lamps.see(row[0])
    assert lamps.states() == [("speed", AMBER, False, 3)]


@pytest.mark.parametrize(
    ("changes", "age_s", "over", "asked", "word"),
    [
        ({}, 0.0, False, {}, "APPROACH"),
        ({}, 0.0, False, {"slow": 1}, "APPROACH"),
        ({"guard_name": "frame_age", "guard_action": "hold"}, 0.0, False, {}, "HOLDING"),
        ({"guard_name": "force", "guard_action": "stop"}, 9.0, True, {}, "STOPPED"),
        ({}, 0.0, False, {"pause": 1}, "PAUSED"),
        ({}, 0.0, False, {"stop": 1}, "STOPPING"),
        ({}, 2.0, False, {}, "SILENT"),
        ({}, 2.0, True, {"stop": 1}, "ENDED"),
    ],
)
def test_the_banner_says_what_the_loop_does(
    changes: dict[str, Any], age_s: float, over: bool, asked: dict[str, int], word: str
) -> None:
    from rt.page.panel import banner, state

    row = record(3)
    for name, value in changes.items():
        row[name] = value
    decision = state(row[0], age_s=age_s, over=over, asked=asked)
    assert decision[0] == word
    text = banner(*decision, row[0], {"page": "20/s"})
    assert word in text and "20/s" in text
    assert banner(*decision, BLANK[0], {})  # nothing is known: dashes, no error


def test_the_banner_quotes_what_others_wrote() -> None:
    from rt.page.panel import banner

    assert "<script>" not in banner("A", "red", "<script>alert(1)</script>", None, {})


def test_charts_keep_the_last_seconds_and_begin_again_with_a_run() -> None:
    from rt.page.panel import CHART_S, History

    history = History(STAGES)
    for k in range(900):
        history.append(record(k)[0] if k % 100 == 0 else _moved(k))
    table = history.table()
    assert table.shape[1] == 5 + len(STAGES) and len(table) <= 600
    assert table[-1, 0] - table[0, 0] <= CHART_S and np.all(np.diff(table[:, 0]) > 0)
    history.append(record(0)[0])
    assert len(history.table()) == 1


def test_a_page_that_comes_after_the_last_view_still_shows_it() -> None:
    from rt.page.display import Display
    from rt.page.server import serve

    server = serve("127.0.0.1", 8871)
    try:
        display = Display(server, HEADER, lambda gui: None)
        for k in range(5):
            display.see(record(k)[0])
        last = record(5)
        last["frame"] = -1
        display.see(last[0])
        display.draw(last[0], everything=True)
        assert display._picture._image.image.std() > 5
        assert len(display.scene._cloud.points) == 64 * 64
    finally:
        server.stop()


def test_a_chart_holds_no_nan_which_would_blank_it() -> None:
    from rt.page.panel import carried

    nan = np.nan
    assert carried(np.array([nan, 3.0, nan, nan, 5.0, nan])).tolist() == [3, 3, 3, 3, 5, 5]
    assert carried(np.full(3, nan)).tolist() == [0, 0, 0]


def _moved(k: int) -> Any:
    row = BLANK.copy()
    row["cycle"], row["stamp_ns"] = k, 10**9 + k * 33_333_333
    return row[0]


def test_a_recording_plays_in_its_own_time_and_can_be_sought() -> None:
    from rt.page.player import Player

    player = Player([5 * 10**9 + k * 100_000_000 for k in range(101)])
    assert [player.step(t) for t in (50.0, 50.05, 50.1, 51.0)] == [0, 0, 1, 10]
    player.speed = 4.0
    assert player.step(52.0) == 50
    player.seek(3.0)
    assert player.step(60.0) == 30 and not player.playing
    player.toggle()
    assert player.step(100.0) == 100 and not player.playing
    player.toggle()
    assert player.step(100.0) == 0 and player.playing


def test_the_buttons_of_a_job_ask_for_pause_step_and_skip() -> None:
    from rt.page.server import Buttons
    from rt.record.ring import CONTROL

    class Reader:
        def __init__(self) -> None:
            self.header = {**HEADER, "config": {"tries": 3}}
            self.words = dict.fromkeys(CONTROL, 0)

        def ask(self, word: str, value: int = 1) -> None:
            self.words[word] = value

        def asked(self) -> dict[str, int]:
            return dict(self.words)

    reader: Any = Reader()
    buttons = Buttons(reader)
    buttons.press("pause")
    assert reader.words["pause"] == 1
    reader.words["pause"] = 0  # a step, or the keyboard, ended the pause
    for word in ("step", "skip", "pause"):
        buttons.press(word)
        assert reader.words[word] == 1
    buttons.press("pause")
    assert buttons.now()["pause"] == 0 == buttons.now()["stop"]
