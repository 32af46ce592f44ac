"""bench.figures: the blocks of README and docs are what the stored runs make them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.figures import (
    FIGURES,
    PAGES,
    ROOT,
    FiguresError,
    FiguresOptions,
    blocks,
    fill,
    make,
    read_stored,
    stale,
    summarise,
)


def test_every_page_is_what_the_stored_figures_make_it() -> None:
    assert stale(ROOT) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The part of the repository that figures touch."""
    models = [f"rt/models/{name}" for name in ("distance.json", "distance.onnx", "field.onnx")]
    for name in (*PAGES, *models):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs/figures", tmp_path / "docs/figures")
    for picture in (ROOT / "docs").glob("*.png"):
        shutil.copy(picture, tmp_path / "docs" / picture.name)
    return tmp_path


def study_result(mm: float) -> dict[str, Any]:
    median = {"Tsai": [0.3, 0.03], "Park": [0.2, 0.02], "joint": [mm, 0.01]}
    return {
        "accuracy": {"15": {"median": median, "coverage_all": 0.951}},
        "corruption": {"a": {"found": 0.99}, "b": {"found": 1.0}},
    }


def test_a_new_run_goes_into_the_results_and_a_missing_one_keeps_its_summary(
    copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("runs")
    (runs / "study").mkdir()
    (runs / "study/study.json").write_text(json.dumps(study_result(0.1234)))
    before = json.loads((copy / "docs/figures/trials.json").read_text())
    assert make(FiguresOptions(runs=runs, machine="an abacus"), copy) == 0
    text = (copy / "docs/results.md").read_text()
    assert "joint median 0.123 mm, 0.010 deg (best closed form 0.200 mm)" in text
    assert "95.1 %" in text and "99.0 % or more" in text and "`calib.study` (an abacus)" in text
    assert json.loads((copy / "docs/figures/trials.json").read_text()) == before
    assert stale(copy) == stale(ROOT)
    assert make(FiguresOptions(check=True), copy) == 0


def test_check_finds_a_figure_edited_by_hand_another_picture_and_another_network(
    copy: Path,
) -> None:
    page = copy / "docs/results.md"
    whole = page.read_text()
    page.write_text(whole.replace("factored graph", "factored graph!"))
    assert make(FiguresOptions(check=True), copy) == 1
    assert make(FiguresOptions(pages=True), copy) == 0
    assert page.read_text() == whole
    (copy / "docs/trials.png").write_bytes(b"another")
    assert any("trials.png" in line for line in stale(copy))
    shutil.copy(ROOT / "docs/trials.png", copy / "docs/trials.png")
    path = copy / "docs/figures/trials.json"
    path.write_text(path.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    assert any("another network" in line for line in stale(copy))


def test_prose_around_the_blocks_stays(copy: Path) -> None:
    text = (copy / "docs/results.md").read_text()
    made = blocks(read_stored(copy))
    changed = fill(f"Before.\n\n{text}\n\nAfter.\n", made)
    assert changed == f"Before.\n\n{text}\n\nAfter.\n"


def test_a_picture_is_linked_from_where_the_page_is() -> None:
    stored = {"servo": {"title": "a run", "command": "c", "machine": "m", "table": ["| |"]}}
    assert blocks(stored, "README.md")["servo"].startswith("![a run](docs/servo.png)\n")
    assert blocks(stored, "docs/disturbances.md")["servo"].startswith("![a run](servo.png)\n")


def test_a_block_without_a_figure_and_one_never_closed_are_refused() -> None:
    with pytest.raises(FiguresError, match="'nothing'"):
        fill("<!-- figures:nothing -->\n<!-- /figures -->", {})
    with pytest.raises(FiguresError, match="opens 1 blocks of figures and closes 0"):
        fill("<!-- figures:trials -->", {"trials": ""})


def test_a_run_with_other_options_is_refused(tmp_path: Path) -> None:
    result = {"config": {"trials": 10, "disturbance": {"noise": 0.4}, "seed": 0}}
    (tmp_path / "trials.json").write_text(json.dumps(result))
    with pytest.raises(FiguresError, match=r"config\.trials = 10, the figure needs 400"):
        summarise(FIGURES["trials"], tmp_path, "here")
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(FiguresError, match="lacks a value of the figure"):
        summarise(FIGURES["study"], tmp_path, "here")
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(FiguresError, match=r"run `python -m calib\.study` again"):
        summarise(FIGURES["study"], tmp_path, "here")


def test_an_unknown_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="known are servo, trials"):
        FiguresOptions(only=("nonsense",))
