"""Gathering image-pose pairs: the arm moves through poses chosen for it, or a person guides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.collect.protocol import CalibrationCell, ImageFrame, PoseState
from calib.data.recording import Writer, read_dataset
from calib.errors import CalibrationError
from calib.solve.closed_form import closed_form, rotation_spread, target_pose, with_target
from calib.solve.model import Unknowns
from calib.solve.motions import (
    greedy,
    hand_pose,
    middle_of,
    pose_information,
    random_viewpoints,
    seen_fraction,
    working_matrix,
)
from calib.solve.noise import Noise
from calib.solve.se3 import angle_deg, from_vector, inverse, to_vector
from calib.target.detect import Detection, detect, read_image
from calib.target.targets import Target
from rt.camera import CameraError, StaleFrameError
from rt.guard.limits import Limits
from rt.guard.reach import joint_trouble
from rt.pose import Array, from_top_down
from rt.robot.kinematics import joint_frames, joints_at

TICK_NS = 20_000_000
_TRIES = 40
"""Steps of Newton's method within which a pose in reach is found."""
MOST_WOUND_RAD = np.radians(180.0)
"""Farthest from zero that the last joint is left; tilts bring it further, and a UR's ends at 360 degrees."""
STILL_M, STILL_DEG, STILL_S = 1e-4, 0.01, 0.3
"""An arm that moves less than this for so long is still."""
FRAME_S = 10.0
"""A camera that shows no frame of the resting arm for so long is lost."""
LEAST_RETURNS = 0.2
"""Part of a depth image that must have depth, where there is no target."""
APART_M, APART_DEG = 0.02, 4.0
"""A guided pose must differ from every stored one by one of these."""
NEW_M, NEW_DEG = 0.05, 12.0
"""A pose of `look_elsewhere` differs from every pose of the calibration by one of these."""
TYPICAL = Noise(0.15, 3e-4, float(np.radians(0.03)))
Say = Callable[[str], None]


@dataclass(frozen=True)
class CollectLimits:
    """Limits of the hand's motion while it collects."""

    travel_m: float = 0.35
    """From where it started."""
    down_m: float = 0.10
    """Below where it started."""
    nearest_m: float = 0.18
    """Camera to target."""
    speed_m_s: float = 0.08
    turn_deg_s: float = 20.0


class Collector:
    """Moves, waits, looks and stores."""

    def __init__(
        self,
        cell: CalibrationCell,
        target: Target | None,
        folder: Path,
        limits: CollectLimits,
        say: Say,
        confirm: Callable[[str], bool] = lambda question: True,
        resume: bool = False,
    ) -> None:
        """target: None stores depth of whatever is there. resume: go on in a folder of the same set-up."""
        self.cell, self.limits, self.say = cell, limits, say
        self._target = target
        self.confirm = confirm
        self.camera = cell.camera.intrinsics
        self.writer = Writer(folder, target, self.camera, True, cell.stream, resume, cell.poses_of)
        self.folder = folder
        self.start = cell.robot.state().T_base_hand.copy()
        self.poses: list[Array] = []
        self.seen: list[Array] = []
        self.path: list[tuple[int, Array]] = []
        if self.writer.count:
            self._take_up()

    @property
    def target(self) -> Target:
        """The target; raises CalibrationError if there is none."""
        if self._target is None:
            raise CalibrationError("this needs a target; give --target")
        return self._target

    def _take_up(self) -> None:
        """Take the stored pairs as if they had been taken now."""
        recording = read_dataset(self.folder)
        assert recording.format is not None
        for entry, T in zip(recording.entries, recording.read_poses(recording.format), strict=True):
            found = detect(self.target, read_image(str(entry.image))) if self._target else None
            if found is not None:
                points = self.target.points()[found.ids]
                self.seen.append(target_pose(self.camera, points, found.pixels).T_camera_target)
            if found is not None or self._target is None:
                self.poses.append(T)
        self.say(
            f"{self.folder}: {self.writer.count} pairs are stored already; going on after them"
        )

    def wait_still(self, timeout_s: float = 5.0) -> Array:
        """The hand's pose once it rests; raises CalibrationError if it does not."""
        robot = self.cell.robot
        since = robot.now_ns()
        first, deadline = robot.state().T_base_hand, robot.now_ns() + int(timeout_s * 1e9)
        while robot.now_ns() - since < STILL_S * 1e9:
            self.cell.wait(TICK_NS)
            now = robot.state().T_base_hand
            if not _alike(first, now, STILL_M, STILL_DEG):
                first, since = now, robot.now_ns()
            if robot.now_ns() > deadline:
                raise CalibrationError(
                    f"the arm does not come to rest within {timeout_s:g} s; nothing more is stored"
                )
        return first

    def go(self, T_base_hand: Array) -> None:
        """Stream a straight path to a pose at the limits' speed."""
        robot = self.cell.robot
        self.check(T_base_hand)
        try:
            for pose in self.way(T_base_hand):
                robot.move(pose)
                self.cell.wait(TICK_NS)
        except BaseException:
            robot.stop()
            raise

    def way(self, T_base_hand: Array) -> Iterator[Array]:
        """Poses (4, 4) of a straight path at the limits' speed, one a tick.

        Turns about the hand's z add up in the last joint. A path that would bring that joint beyond
        MOST_WOUND_RAD also turns once the other way about it, which ends in the same pose.
        """
        state = self.cell.robot.state()
        here = state.T_base_hand
        step = to_vector(inverse(here) @ T_base_hand)
        q = getattr(state, "q", None)
        wound = (float(q[-1]) if q is not None else 0.0) + float(step[2])
        unwind = -2 * np.pi * np.sign(wound) if abs(wound) > MOST_WOUND_RAD else 0.0
        seconds = max(
            np.linalg.norm(step[3:]) / self.limits.speed_m_s,
            np.degrees(np.linalg.norm(step[:3]) + abs(unwind)) / self.limits.turn_deg_s,
        )
        ticks = max(1, int(np.ceil(seconds * 1e9 / TICK_NS)))
        for part in np.arange(1, ticks + 1) / ticks:
            turn = from_vector(np.array([0, 0, unwind * part, 0, 0, 0]))
            yield here @ from_vector(step * part) @ turn

    def check(self, T_base_hand: Array) -> None:
        """Raises CalibrationError for a pose outside the limits."""
        if (reason := self.forbidden(T_base_hand)) is not None:
            raise CalibrationError(f"the arm will not go there: {reason}")

    def forbidden(self, T_base_hand: Array) -> str | None:
        away = float(np.linalg.norm(T_base_hand[:3, 3] - self.start[:3, 3]))
        if away > self.limits.travel_m:
            return f"{away:.3f} m from the start, the limit is {self.limits.travel_m:g} m"
        down = float(self.start[2, 3] - T_base_hand[2, 3])
        if down > self.limits.down_m:
            return f"{down:.3f} m below the start, the limit is {self.limits.down_m:g} m"
        return self.out_of_reach(T_base_hand)

    def out_of_reach(self, T_base_hand: Array) -> str | None:
        """Reason why the joints of a known arm cannot go to a pose; None if they can, or are not known."""
        robot = self.cell.robot
        state, arm = robot.state(), getattr(robot, "arm_model", None)
        q = getattr(state, "q", None)
        if arm is None or q is None:
            return None
        T_flange_hand = inverse(joint_frames(arm, q)[6]) @ state.T_base_hand
        try:
            there = joints_at(arm, T_base_hand.astype(np.float64), T_flange_hand, q, _TRIES)
        except ValueError as error:
            return str(error)
        # `way` keeps the last joint's turns near zero.
        there[-1] = np.remainder(there[-1] + np.pi, 2 * np.pi) - np.pi
        return joint_trouble(arm, there, Limits(), np.array(from_top_down(T_base_hand))) or None

    def look(self) -> tuple[ImageFrame, Detection | None]:
        frame = self.cell.camera.read_latest(max_age_s=0.5)
        return frame, detect(self._target, frame.image) if self._target else None

    def frame_since(self, stamp_ns: int) -> ImageFrame:
        """A frame exposed at `stamp_ns` or later; raises CameraError if none comes within FRAME_S."""
        robot = self.cell.robot
        deadline = robot.now_ns() + int(FRAME_S * 1e9)
        while True:
            try:
                frame = self.cell.camera.read_latest(max_age_s=FRAME_S)
                if frame.stamp_ns >= stamp_ns:
                    return frame
            except StaleFrameError:
                if robot.now_ns() > deadline:
                    raise
            if robot.now_ns() > deadline:
                raise CameraError(
                    f"no frame was exposed within {FRAME_S:g} s after the arm came to rest; check the "
                    "camera's rate, and that its stamps are on the arm's clock"
                )
            self.cell.wait(TICK_NS)

    def take(self, label: str) -> bool:
        """Store one sample of the resting arm; False, with a line said, if the target is not seen."""
        before = self.wait_still()
        # the arm rests since STILL_S; an older frame may show it moving
        frame = self.frame_since(self.cell.robot.now_ns() - int(0.8 * STILL_S * 1e9))
        found = detect(self._target, frame.image) if self._target else None
        state = self.cell.robot.state()
        if not _alike(before, state.T_base_hand, STILL_M, STILL_DEG):
            self.say(f"{label}: the arm moved during the exposure; not stored")
            return False
        _preview(self.folder / "latest.png", frame.image, found, label)
        if self._target is None:
            return self._store_scene(frame, state, label)
        if found is None:
            self.say(f"{label}: no target seen")
            return False
        pose = target_pose(self.camera, self.target.points()[found.ids], found.pixels)
        name = self.writer.add(
            frame.image, frame.depth, state.T_base_hand, frame.stamp_ns, state.stamp_ns
        )
        self.poses.append(state.T_base_hand.copy())
        self.seen.append(pose.T_camera_target)
        distance = float(np.linalg.norm(pose.T_camera_target[:3, 3]))
        self.say(
            f"{label}: stored {name}, {len(found.ids)} of {len(self.target.points())} points, "
            f"{pose.rms_px:.2f} px, target at {distance * 1e3:.0f} mm"
        )
        return True

    def _store_scene(self, frame: ImageFrame, state: PoseState, label: str) -> bool:
        returns = 0.0 if frame.depth is None else float(np.mean(frame.depth > 0))
        if returns < LEAST_RETURNS:
            self.say(f"{label}: depth in {returns:.0%} of the image only; not stored")
            return False
        name = self.writer.add(
            frame.image, frame.depth, state.T_base_hand, frame.stamp_ns, state.stamp_ns
        )
        self.poses.append(state.T_base_hand.copy())
        self.say(f"{label}: stored {name}, depth in {returns:.0%} of the image")
        return True

    def estimate(self) -> Unknowns:
        """A first transform from the samples so far."""
        A, C = np.array(self.poses), np.array(self.seen)
        X = closed_form(A, C, "Park") if len(A) >= 3 else None
        if X is None or rotation_spread(A)[1] < 2:
            lost = "lost in the others" if len(A) else "never seen (is the print that of --target?)"
            raise CalibrationError(
                f"after {len(A)} first samples the camera's place is still unknown: the target was {lost}; "
                f"start with it in the middle of the image, seen from above ({self.folder}/latest.png)"
            )
        return with_target(X, A, C, self.camera)

    def plan(self, count: int, rng: np.random.Generator, most: int = 300) -> list[Array]:
        """The `count` hand poses that together tell most, within the limits."""
        state = self.estimate()
        points = self.target.points()
        middle = middle_of(points)
        allowed: list[Array] = []
        for v in random_viewpoints(rng, most, (self.limits.nearest_m, 0.55)):
            T = hand_pose(state, v.pose(middle), True)
            # what is left of the guess's error must not lose the target: ask for all of it
            if seen_fraction(self.camera, points, inverse(v.pose(middle))) < 0.99:
                continue
            if self.forbidden(T) is None:
                allowed.append(T)
        if not allowed:
            raise CalibrationError(
                "no pose within the limits shows the whole target; start further away or raise "
                f"--travel (now {self.limits.travel_m:g} m)"
            )
        distance = float(np.median(np.linalg.norm(np.array(self.seen)[:, :3, 3], axis=1)))
        info = pose_information(state, TYPICAL, np.array(allowed), points, True)
        have = pose_information(state, TYPICAL, np.array(self.poses), points, True).sum(axis=0)
        chosen = greedy(info, working_matrix(state.T_mount_camera, distance), count, have)
        return _short_way([allowed[i] for i in chosen], self.cell.robot.state().T_base_hand)

    def finish(self) -> None:
        """Close the folder and let go of the devices."""
        self.writer.close()
        self.cell.close()


def automatic(collector: Collector, count: int, rng: np.random.Generator) -> int:
    """Move, look and store until `count` samples are there; returns how many are."""
    first = [(0, 0, 0), (14, 0, 0), (0, 14, 0), (-12, -8, 20), (8, -12, -20)]
    try:
        if not collector.confirm(
            f"The arm will turn by up to 25 deg where it is, then move within "
            f"{collector.limits.travel_m:g} m at {collector.limits.speed_m_s:g} m/s."
        ):
            raise CalibrationError("stopped by the operator before any motion")
        for k, turn in enumerate(first if len(collector.poses) < len(first) else []):
            for part in (1.0, 0.5):
                collector.go(collector.start @ from_vector(np.radians([*turn, 0, 0, 0]) * part))
                if collector.take(f"first look {k + 1}/{len(first)}") or not any(turn):
                    break
        for attempt in range(3):
            missing = count - len(collector.poses)
            if missing <= 0:
                break
            plan = collector.plan(missing, rng)
            for k, T in enumerate(plan):
                collector.go(T)
                collector.take(f"pose {len(collector.poses) + 1}/{count}")
                if k == 2 and len(plan) > 6 and attempt == 0:
                    break  # enough to know the camera's place well; plan the rest with it
        collector.go(collector.start)
    finally:
        collector.cell.robot.stop()
        collector.finish()
    return len(collector.poses)


def look_elsewhere(
    collector: Collector, state: Unknowns, known: Array, count: int, rng: np.random.Generator
) -> int:
    """Look at a target whose place is known, from poses far from the known ones; returns how many.

    known: hand poses (N, 4, 4) of the calibration, T_base_hand. A new pose is NEW_M or NEW_DEG away from
    each of them; of those allowed, the ones that together tell most about the transform are taken.
    """
    points = collector.target.points()
    allowed = []
    for v in random_viewpoints(rng, 500, (collector.limits.nearest_m, 0.55), roll_deg=170.0):
        T_target_camera = v.pose(middle_of(points))
        T = hand_pose(state, T_target_camera, True)
        if seen_fraction(collector.camera, points, inverse(T_target_camera)) < 0.97:
            continue
        if collector.forbidden(T) is None and not any(_alike(T, k, NEW_M, NEW_DEG) for k in known):
            allowed.append(T)
    if len(allowed) < 3:
        raise CalibrationError(
            f"{len(allowed)} poses within {collector.limits.travel_m:g} m of the start show the target "
            f"from {NEW_M * 1e3:g} mm or {NEW_DEG:g} deg beside every pose of the calibration; start "
            "elsewhere, with the target in view, or move it and calibrate again"
        )
    info = pose_information(state, TYPICAL, np.array(allowed), points, True)
    distance = 0.35
    chosen = greedy(info, working_matrix(state.T_mount_camera, distance), count)
    try:
        if not collector.confirm(
            f"The arm will look from {len(chosen)} new poses within {collector.limits.travel_m:g} m at "
            f"{collector.limits.speed_m_s:g} m/s."
        ):
            raise CalibrationError("stopped by the operator before any motion")
        way = _short_way([allowed[i] for i in chosen], collector.start)
        for k, T in enumerate(way):
            collector.go(T)
            collector.take(f"new pose {k + 1}/{len(way)}")
        collector.go(collector.start)
    finally:
        collector.cell.robot.stop()
        collector.finish()
    return len(collector.poses)


def moving(collector: Collector, count: int, rng: np.random.Generator, every_s: float = 0.4) -> int:
    """Take `count` images on the way between poses, with the hand's whole path."""
    robot = collector.cell.robot
    stored = 0
    try:
        if not collector.confirm(f"The arm will move within {collector.limits.travel_m:g} m."):
            raise CalibrationError("stopped by the operator before any motion")
        for turn in [(0, 0, 0), (12, 0, 0), (0, 12, 0), (-10, -8, 15)]:
            collector.go(collector.start @ from_vector(np.radians([*turn, 0, 0, 0])))
            collector.wait_still()
            frame, found = collector.look()
            if found is not None:
                pose = target_pose(
                    collector.camera, collector.target.points()[found.ids], found.pixels
                )
                collector.poses.append(robot.state().T_base_hand.copy())
                collector.seen.append(pose.T_camera_target)
        collector.path.clear()
        next_ns = robot.now_ns() + int(every_s * 1e9)
        for T in collector.plan(max(8, count // 3), rng):
            for on_the_way in collector.way(T):
                robot.move(on_the_way)
                collector.cell.wait(TICK_NS)
                state = robot.state()
                collector.path.append((state.stamp_ns, state.T_base_hand.copy()))
                if robot.now_ns() < next_ns or stored >= count:
                    continue
                next_ns = robot.now_ns() + int(every_s * 1e9)
                frame, found = collector.look()
                if found is not None:
                    collector.writer.add(
                        frame.image, None, state.T_base_hand, frame.stamp_ns, state.stamp_ns
                    )
                    stored += 1
                    collector.say(f"moving {stored}/{count}: {len(found.ids)} points")
        for _ in range(10):
            collector.cell.wait(TICK_NS)
            state = robot.state()
            collector.path.append((state.stamp_ns, state.T_base_hand.copy()))
        collector.writer.add_trajectory(*map(list, zip(*collector.path, strict=True)))
    finally:
        robot.stop()
        collector.finish()
    return stored


def free_drive(collector: Collector, count: int, timeout_s: float = 600.0) -> int:
    """Store a sample whenever the guided arm rests at a new place; returns how many are stored."""
    robot = collector.cell.robot
    collector.say(f"guide the arm; it is stored when it rests at a new pose ({count} wanted)")
    deadline = robot.now_ns() + int(timeout_s * 1e9)
    rest, since = robot.state().T_base_hand, robot.now_ns()
    tried = None
    try:
        while len(collector.poses) < count and robot.now_ns() < deadline:
            collector.cell.wait(TICK_NS)
            now = robot.state().T_base_hand
            if not _alike(rest, now, 5e-4, 0.05):
                rest, since, tried = now, robot.now_ns(), None
            if robot.now_ns() - since < 0.6e9 or tried is not None:
                continue
            tried = now
            if any(_alike(now, old, APART_M, APART_DEG) for old in collector.poses):
                collector.say("at rest, but too like a stored pose: tilt or turn it more")
                continue
            collector.take(f"pose {len(collector.poses) + 1}/{count}")
    except KeyboardInterrupt:
        collector.say("stopped by the operator")
    finally:
        collector.finish()
    return len(collector.poses)


def _alike(a: Array, b: Array, metres: float, degrees: float) -> bool:
    near = float(np.linalg.norm(a[:3, 3] - b[:3, 3])) <= metres
    return near and float(angle_deg(a[:3, :3].T @ b[:3, :3])) <= degrees


def _short_way(poses: list[Array], start: Array) -> list[Array]:
    """The poses ordered such that each is near the one before."""
    left, here, way = list(poses), start, []
    while left:
        cost = [
            np.linalg.norm(T[:3, 3] - here[:3, 3]) + 0.003 * angle_deg(T[:3, :3].T @ here[:3, :3])
            for T in left
        ]
        here = left.pop(int(np.argmin(cost)))
        way.append(here)
    return way


def draw_detection(image: NDArray[np.uint8], found: Detection | None) -> NDArray[np.uint8]:
    """The image in colour (H, W, 3) BGR with the points found."""
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if found is not None:
        radius = max(3, round(image.shape[1] / 160))
        for k, (u, v) in enumerate(found.pixels):
            colour = (0, 0, 255) if k == 0 else (80, 200, 0)
            centre = (round(u * 16), round(v * 16))
            cv2.circle(picture, centre, radius * 16, colour, 1, cv2.LINE_AA, shift=4)
    return np.asarray(picture)


def _preview(path: Path, image: NDArray[np.uint8], found: Detection | None, label: str) -> None:
    picture = draw_detection(image, found)
    text = f"{label}: {len(found.ids) if found else 0} points"
    cv2.putText(
        picture, text, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 160, 255), 1, cv2.LINE_AA
    )
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
