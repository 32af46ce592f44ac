"""rt.hand: a hand file is read whole, or refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from rt.hand import Hand, HandError, load_hand

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


@pytest.mark.parametrize("value", ["0", "-0.1", "true", '"0.1"', "nan"])
def test_a_number_that_cannot_be_is_refused(tmp_path: Path, value: str) -> None:
    text = GOOD.replace("opening_m = 0.14", f"opening_m = {value}")
    with pytest.raises(HandError, match=r"opening_m = .* must be a number above 0"):
        load_hand(write(tmp_path, text))
