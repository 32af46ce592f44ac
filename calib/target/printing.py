"""A target as a PDF in true size, with a ruler to check the printer by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calib.errors import CalibrationError
from calib.target.targets import Target

PAPER_MM = {
    "A4": (210, 297),
    "Letter": (215.9, 279.4),
    "A3": (297, 420),
    "A2": (420, 594),
    "A1": (594, 841),
    "A0": (841, 1189),
}
MARGIN_MM = 8.0
FOOTER_MM = 18.0


def page(target: Target, paper: str | None = None) -> tuple[str, float, float]:
    """(paper, width, height in mm) that holds the target, turned if need be; the smallest unless named."""
    x0, y0, x1, y1 = (1e3 * v for v in target.extent())
    need = x1 - x0 + 2 * MARGIN_MM, y1 - y0 + 2 * MARGIN_MM + FOOTER_MM
    for name in [paper] if paper else PAPER_MM:
        if name not in PAPER_MM:
            raise CalibrationError(f"paper {name!r} is not one of {', '.join(PAPER_MM)}")
        short, long = PAPER_MM[name]
        for width, height in ((short, long), (long, short)):
            if need[0] <= width and need[1] <= height:
                return name, width, height
    raise CalibrationError(
        f"{target.spec} needs {need[0]:.0f} x {need[1]:.0f} mm of paper, more than "
        f"{paper or 'A0'} has; take fewer or smaller fields"
    )


def print_target(target: Target, path: Path, paper: str | None = None) -> str:
    """Write the PDF; returns the paper's name. Print it at 100 %, without fitting to the page."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    name, width, height = page(target, paper)
    figure = Figure(figsize=(width / 25.4, height / 25.4))
    FigureCanvasPdf(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    x0, y0, x1, y1 = target.extent()
    left = (width / 1e3 - (x1 - x0)) / 2 - x0
    top = (height / 1e3 - FOOTER_MM / 1e3 - (y1 - y0)) / 2 - y0
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    shapes = target.shapes()
    axes.add_collection(
        PolyCollection(
            [(p + np.array([left, top])) * 1e3 for _, p in shapes],
            facecolors=["black" if black else "white" for black, _ in shapes],
            edgecolors="none",
            antialiaseds=False,
        )
    )
    y = height - MARGIN_MM - 4
    start = (width - 100) / 2
    axes.plot([start, start + 100], [y, y], color="black", lw=0.6)
    for k in range(11):
        length = 3 if k % 5 == 0 else 1.5
        axes.plot([start + 10 * k] * 2, [y, y - length], color="black", lw=0.6)
    axes.text(
        width / 2,
        y + 4.5,
        f"{target.spec}    the ruler is 100 mm long: print at 100 %, then measure it",
        ha="center",
        va="center",
        fontsize=7,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="pdf", metadata={"CreationDate": None, "Title": target.spec})
    return name
