"""rt.hand: a hand file is read whole, or refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rt.hand import Hand, HandError, load_hand, load_tip_travel

GOOD = """
name = "wide"
opening_m = 0.14
finger_thickness_m = 0.01
finger_width_m = 0.02
finger_length_m = 0.08
pad_height_m = 0.02
palm_length_m = 0.16
palm_width_m = 0.08
max_force_N = 120
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "hand.toml"
    path.write_text(text)
    return path


def test_the_default_hand_is_the_2f85() -> None:
    hand = load_hand()
    assert hand.name == "robotiq_2f85"
    assert hand.opening_m == 0.085
    assert load_hand("robotiq_2f85") == hand


def test_a_hand_of_the_users_own(tmp_path: Path) -> None:
    hand = load_hand(write(tmp_path, GOOD))
    assert hand.opening_m == 0.14
    assert isinstance(hand.max_force_N, float)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(HandError, match=r"'claw'.*robotiq_2f85"):
        load_hand("claw")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandError, match="no hand"):
        load_hand(tmp_path / "none.toml")


@pytest.mark.parametrize("name", [f.name for f in fields(Hand)])
def test_every_field_is_needed(tmp_path: Path, name: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{name} "))
    with pytest.raises(HandError, match=f"missing {name}"):
        load_hand(write(tmp_path, text))


def test_a_field_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandError, match="unknown colour"):
        load_hand(write(tmp_path, GOOD + "colour = 3\n"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        *(
            ("opening_m = 0.14", f"opening_m = {v}", "opening_m = .* must be from 0.0005 to 0.5")
            for v in ("0", "-0.1", "nan", "inf")
        ),
        *(
            ("opening_m = 0.14", f"opening_m = {v}", "opening_m = .* must be a number")
            for v in ("true", '"0.1"')
        ),
        (
            "palm_length_m = 0.16",
            "palm_length_m = 160",
            r"palm_length_m = 160 .* in mm\? That would be 0.16 m",
        ),
        ("max_force_N = 120", "max_force_N = 0.12", "max_force_N = 0.12 must be from 1 to 5000"),
        (
            "pad_height_m = 0.02",
            "pad_height_m = 0.2",
            "pad_height_m = 0.2 m must be at most finger_length_m = 0.08",
        ),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(HandError, match=message):
        load_hand(write(tmp_path, GOOD.replace(old, new)))


def test_the_tips_of_a_2f85_travel_as_its_maker_says() -> None:
    tips = load_tip_travel()
    for opening_m, travel_m in ((0.085, 0.0), (0.075, 0.0039), (0.045, 0.0113), (0.0, 0.0139)):
        assert tips(opening_m) == pytest.approx(travel_m, abs=1e-9)
    assert tips(0.2) == 0 and tips(-1) == 0.0139


def test_the_tips_go_along_one_circle() -> None:
    """Radius 57.15 mm, its centre 4.85 mm beside the middle of the open hand's plane of symmetry."""
    tips, at = load_tip_travel(), lambda x: float(np.sqrt(57.15**2 - (x - 4.85) ** 2))
    for opening_mm in range(0, 86, 5):
        drop_mm = at(opening_mm / 2) - at(42.5)
        assert tips(opening_mm * 1e-3) * 1e3 == pytest.approx(drop_mm, abs=0.5)


def test_a_hand_without_the_key_does_not_travel(tmp_path: Path) -> None:
    tips = load_tip_travel(write(tmp_path, GOOD))
    assert tips(0.0) == tips(0.1) == 0.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[[0.0, 0.01], [0.10, 0.0]]", "must rise from 0 to opening_m = 0.14"),
        ("[[0.05, 0.01], [0.14, 0.0]]", "must rise from 0"),
        ("[[0.0, 13.9], [0.14, 0.0]]", "must be from 0 to 0.05 m"),
        ("[[0.0, 0.01], [0.14, 0.001]]", "0 at the full opening"),
        ("[1, 2]", "list of"),
        ('[["a", 2]]', "list of"),
    ],
)
def test_a_travel_that_cannot_be_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(HandError, match=message):
        load_tip_travel(write(tmp_path, GOOD + f"tip_travel_m = {rows}\n"))
