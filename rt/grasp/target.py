"""The wanted object as a user names it: a point in base, a box in the picture, a function of the picture, or
a click on the live page. Each becomes a point in base (rt.controller.target.TargetPoint)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame, Intrinsics
from rt.cell.setup import RecordSink
from rt.controller import FAR_M
from rt.controller.target import LOW_M, RADIUS_M, TargetPoint, beyond_m
from rt.grasp.target_function import FunctionProcess, TargetError
from rt.guard.limits import Limits

Box = tuple[float, float, float, float]
"""u0, v0, u1, v1 [px]: columns u0 to u1 and rows v0 to v1 of the camera's depth image."""

CLICK = "click"
"""As a target: wait at the start height for a click on the live page."""
_LEAST_PX = 5
"""Fewer returns are noise."""
_ABOVE = 0.02
"""Share of the returns that must be higher than the table for the table to be left out."""
_EDGE_M = 0.01
"""Added to what was seen of an object: its far side was not."""
LOST_S = 5.0
"""Longest time that the last target of a function holds while the function fails or does not answer."""


def point_of(
    depth: NDArray[np.float32],
    where: NDArray[np.bool_],
    rays: NDArray[np.float32],
    T_base_camera: NDArray[np.float64],
    seen_s: float,
    radius_m: float | None = None,
) -> TargetPoint:
    """The middle of the measured surface in a part of a depth image, as a target.

    depth (H, W) m; where (H, W); rays (H, W, 3) of the camera; T_base_camera (4, 4) at the exposure. The
    middle is the median in x and in y of all that is higher than the table (of everything, if nothing is).
    radius_m: reach of the object; None: of what was seen. Raises TargetError without any depth there.
    """
    seen = where & (depth > 0)
    count, of = int(seen.sum()), int(where.sum())
    least = max(min(_LEAST_PX, of), 1)
    if count < least:
        raise TargetError(
            f"{count} of {of} pixels there have a depth, at least {least} must: choose a part of the "
            "object that is not shiny, black or too near"
        )
    points = (rays[seen] * depth[seen, None]) @ T_base_camera[:3, :3].T + T_base_camera[:3, 3]
    high = points[:, 2] > LOW_M
    if np.count_nonzero(high) >= max(_LEAST_PX, _ABOVE * len(points)):
        points = points[high]
    middle = np.median(points[:, :2], axis=0)
    if radius_m is None:
        way = np.hypot(*(points[:, :2] - middle).T)
        radius_m = float(np.percentile(way, 98)) + _EDGE_M
    return TargetPoint((float(middle[0]), float(middle[1])), radius_m, seen_s)


def mask_of(answer: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) of a box or a mask. Raises TargetError for what is neither, or off the image."""
    height, width = shape
    found = np.asarray(answer)
    if found.shape == shape:
        return np.asarray(found != 0)
    if found.shape != (4,) or not np.isfinite(found.astype(float)).all():
        raise TargetError(
            f"{found.dtype} {found.shape} is neither a mask of {shape} nor a box of u0 v0 u1 v1"
        )
    u0, v0, u1, v1 = found.astype(float)
    if not (0 <= u0 <= u1 < width and 0 <= v0 <= v1 < height):
        raise TargetError(
            f"box {u0:g} {v0:g} {u1:g} {v1:g} is not in the camera's depth image: columns 0 to {width - 1}, "
            f"rows 0 to {height - 1}, u0 <= u1 and v0 <= v1"
        )
    where = np.zeros(shape, bool)
    where[int(v0) : int(v1) + 1, int(u0) : int(u1) + 1] = True
    return where


class WantedObject:
    """The target of a run, from whatever names it; the live page has the last word."""

    def __init__(
        self, target: tuple[float, float] | str | None, box: Box | None, intrinsics: Intrinsics
    ) -> None:
        """target: a point in base [m], `module:function`, or CLICK. Raises TargetError for a box off the
        image."""
        self.now: TargetPoint | None = None
        """None: any object."""
        self._rays = intrinsics.rays()
        self._where = None
        if box is not None:
            self._where = mask_of(box, (intrinsics.height_px, intrinsics.width_px))
        self._function: FunctionProcess | None = None
        if isinstance(target, tuple):
            self.now = TargetPoint(target)
        elif target not in (None, CLICK):
            self._function = FunctionProcess(target, self._target_of)
        self._clicks = 0
        self._good_s: float | None = None
        """Last cycle in which the function had no trouble, or the first: time before the run, as at the
        page's START, is no failure."""

    def close(self) -> None:
        """End the function's process."""
        if self._function is not None:
            self._function.close()

    def begin(
        self,
        look: Callable[[], tuple[Frame, NDArray[np.float64]]],
        patience_s: float,
        limits: Limits,
    ) -> None:
        """Find the target before anything moves. look: the newest frame and T_base_camera at its exposure.
        Raises TargetError if it is not there, or outside the workspace of the limits."""
        if self._where is not None:
            frame, T = look()
            self.now = point_of(frame.depth, self._where, self._rays, T, frame.stamp_ns * 1e-9)
        elif self._function is not None:
            self.now = self._function.first(look, patience_s)
        if self.now is not None and (why := self.now.trouble(limits)):
            raise TargetError(why)

    def hear(self, record: RecordSink | None) -> None:
        """Take the object that was clicked on the live page, if there is news."""
        asked_target = getattr(getattr(record, "ring", None), "asked_target", None)
        if asked_target is None:
            return
        count, asked = asked_target()
        if count > self._clicks:
            self._clicks = count
            x, y, seen_s = asked.tolist()
            self.now = TargetPoint((x, y), RADIUS_M, seen_s) if np.isfinite(x) else None

    def see(self, frame: Frame, T_base_camera: NDArray[np.float64]) -> None:
        """A frame that passed the guard. Never waits. Raises TargetError if the function has failed for
        LOST_S."""
        if self._function is None or self._clicks:
            return
        self._function.offer(frame, T_base_camera)
        self.now = self._function.now or self.now
        if not self._function.trouble or self._good_s is None:
            self._good_s = time.monotonic()
        if time.monotonic() - self._good_s > LOST_S:
            raise TargetError(f"{self._function.trouble}, for {LOST_S:g} s now")

    def _target_of(self, answer: Any, frame: Frame, T: NDArray[np.float64]) -> TargetPoint:
        where = mask_of(answer, frame.depth.shape)
        return point_of(frame.depth, where, self._rays, T, frame.stamp_ns * 1e-9)


def off_target(
    target: TargetPoint,
    found: NDArray[np.bool_] | None,
    hand: NDArray[np.float64],
    predicted_m: float,
) -> str:
    """Why a grasp by a hand (4,) in base would be none of the wanted object; empty if nothing speaks against
    it. found: its cells. predicted_m: distance to the nearest grasp that the network gives to this hand."""
    where = f"of the wanted object at {target.xy_m[0]:.3f}, {target.xy_m[1]:.3f} m"
    off_m = float(beyond_m(target, found, hand[None, :2])[0])
    if off_m > 0:
        return f"no grasp {where} was found: the hand is {off_m * 1e3:.0f} mm beside it"
    if predicted_m > FAR_M:
        return (
            f"no grasp {where} is good: the nearest is predicted {predicted_m * 1e3:.0f} mm from here, must "
            f"be at most {FAR_M * 1e3:.0f} mm"
        )
    return ""
