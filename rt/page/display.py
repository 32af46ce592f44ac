"""Content of the live page: the scene, the view with its field, charts, lamps and the banner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray
from PIL import Image

from rt.controller import RATIO
from rt.controller.target import RADIUS_M
from rt.distance import Distance, DistanceError, open_model
from rt.grasp.target import point_of
from rt.grasp.target_function import TargetError
from rt.hand import Hand, HandError, load_hand
from rt.page import panel
from rt.page import picture as pictures
from rt.page.choice import Choice
from rt.page.scene import PageScene
from rt.pose import from_top_down, to_view
from rt.record.schema import simulated
from rt.view import VIEW

FIELD_SHARE = 0.05
"""Most of a processor that the distance field may take: a slow backend draws it less often."""


class FieldSource:
    """The model that the loop runs, here with one thread, and how often it may be asked."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.distance: Distance | None = None
        self.why = ""
        self._next = 0.0
        model = header.get("model") or {}
        path = model.get("path") if isinstance(model, Mapping) else model
        try:
            self.distance = open_model(path, threads=1)
        except (DistanceError, OSError) as error:
            self.why = f"no field: {error}"

    def hurry(self) -> None:
        """The next one is wanted at once."""
        self._next = 0.0

    def __call__(
        self, view: NDArray[np.float32], theta: float, depth_m: float
    ) -> Image.Image | None:
        """The field as a picture; None where it is not its turn or cannot be had."""
        if self.distance is None or time.monotonic() < self._next:
            return None
        began = time.thread_time()  # of the processor: a busy machine does not make it rarer still
        try:
            result = pictures.veil(pictures.field(self.distance, view, theta, depth_m))
        except DistanceError as error:
            self.why = f"no field: {error}"
            return None
        self._next = time.monotonic() + (time.thread_time() - began) * (1 / FIELD_SHARE - 1)
        return result


class Display:
    """The page's content: `see` every record, `draw` the one to be looked at."""

    def __init__(
        self,
        server: viser.ViserServer,
        header: Mapping[str, Any],
        buttons: Callable[[viser.GuiApi], None],
        choose: Callable[[tuple[float, float, float] | None], None] | None = None,
    ) -> None:
        """buttons: adds those of the page. choose: takes the x, y [m] in base of an object that was clicked
        and the time [s] it was seen, or None for any; None: nothing can be chosen."""
        gui = server.gui
        config = header.get("config") or {}
        self._hand = _hand(header)
        self._field = FieldSource(header)
        self._framed: Any = None
        """The last record with a view."""
        self._veil: tuple[Image.Image, str] | None = None
        """The last field as a picture, and what is said of it."""
        self.scene = PageScene(server, self._hand, float(config.get("ratio", RATIO)), header)
        stages = [str(s) for s in header.get("stages", ())]
        self._history = panel.History(stages)
        self._lamps = panel.Lamps(panel.guard_rows(header))
        self._cycle, self._drawn_frame = -1, -2
        gui.main_panel.dock_right()
        gui.main_panel.set_width(400)
        self._banner = gui.add_html("")
        buttons(gui)
        self._choose, self._pictured = choose, None
        choice = None
        if choose is not None:
            choice = Choice(gui, self._clicked, lambda: choose(None))
        self._picture = panel.PanelPicture(gui, choice)
        left = gui.add_panel()
        shown = [k for k, name in enumerate(stages) if name != "world"]
        with left.add_tab("Strip charts"):
            true = bool((header.get("cell") or {}).get("true_distance", simulated(header)))
            self._charts = panel.Charts(gui, stages or ["-"], shown or [0], true)
            self._guard = gui.add_html("")
        left.dock_left()
        left.set_width(400)

    def see(self, record: Any) -> None:
        """One record, in order, whether it is drawn or not."""
        if int(record["cycle"]) < self._cycle:
            self.forget()
        self._cycle = int(record["cycle"])
        if int(record["frame"]) >= 0:
            self._framed = record
        self.scene.remember(record)
        self._history.append(record)
        self._lamps.see(record)

    def forget(self) -> None:
        """Another approach, or another moment of a recording."""
        self.scene.forget()
        self._history.clear()
        self._lamps.forget()
        self._field.hurry()
        self._drawn_frame, self._veil, self._framed = -2, None, None

    def draw(self, record: Any, everything: bool = False) -> None:
        """All but the banner, for one record that was seen; what may come less often in its turn,
        or everything now."""
        self.scene.show(record, everything)
        self._charts.show(self._history, everything)
        self._guard.content = self._lamps.html()
        framed = record if int(record["frame"]) >= 0 else self._framed
        if framed is not None and int(framed["frame"]) != self._drawn_frame:
            self._drawn_frame = int(framed["frame"])
            self._draw_picture(framed)

    def _clicked(self, across: float, down: float) -> str:
        """The object at that place of the picture is wanted; words for the user."""
        record = self._pictured
        if record is None or self._choose is None:
            return "There is no view yet."
        view, T, seen_s = (
            record["view"],
            self.scene.seen_from(record),
            1e-9 * int(record["frame_stamp_ns"]),
        )
        where = pictures.pixels_at(across, down, view)
        try:
            target = point_of(view, where, VIEW.rays(), T, seen_s, RADIUS_M)
        except TargetError as error:
            return str(error)
        self._choose((*target.xy_m, seen_s))
        return f"Wanted: the object at {target.xy_m[0]:.3f}, {target.xy_m[1]:.3f} m in base."

    def tell(self, words: tuple[str, str, str], record: Any | None, extra: dict[str, str]) -> None:
        """The banner."""
        self._banner.content = panel.banner(*words, record, extra)

    def _draw_picture(self, record: Any) -> None:
        view, action = np.array(record["view"]), np.array(record["action"])
        known = bool(np.isfinite(action).all())
        depth = pictures.surface_depth(view, action[:2] if known else np.zeros(2))
        image = pictures.relief(view)
        fresh = self._field(view, float(action[2]) if known else 0.0, depth)
        if fresh is not None:
            turned = round(float(np.degrees(action[2]))) if known else 0
            at = f"field: θ {turned}°, depth {depth * 1e3:.0f} mm"
            self._veil = fresh, at if known else ""
        note = self._field.why
        if self._veil is not None and not note:
            layer, note = self._veil
            image.paste(layer, (0, 0), layer)
        candidates = record["candidates"], record["distances"]
        wanted, target = np.array(record["target"]), None
        if np.isfinite(wanted).all():
            hand = np.array(from_top_down(self.scene.seen_from(record)))
            target = to_view(np.array([[*wanted, 0.0, 0.0]]), hand)[0, :2]
        drawn = pictures.draw(image, depth, *candidates, action, self._hand, target=target)
        self._pictured = record
        self._picture.show(drawn, note)


def _hand(header: Mapping[str, Any]) -> Hand:
    """The hand that the header describes, or the default."""
    described = header.get("hand")
    try:
        if isinstance(described, Mapping):
            return Hand(**described)
        return load_hand(described) if described else load_hand()
    except (HandError, TypeError):
        return load_hand()
