"""From a recording to a transform, its uncertainty, and what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calib.data.poses import PoseFormat
from calib.data.recording import Recording
from calib.errors import CalibrationError, Finding, listed
from calib.solve.closed_form import (
    METHODS,
    closed_form,
    held_out,
    target_errors,
    target_pose,
    target_poses,
)
from calib.solve.diagnose import TargetViews
from calib.solve.intrinsics import Lens
from calib.solve.model import Free, LensModel, Unknowns, Views, project, target_in_camera
from calib.solve.motions import Advice, advise
from calib.solve.noise import negative_log_likelihood
from calib.solve.observe import (
    Progress,
    choose_lens,
    depth_ratio,
    look,
    nominal_camera,
    silent,
    virtual,
)
from calib.solve.outliers import Consensus, Judged, consensus, corners, explain, judge
from calib.solve.pairing import check_motion, check_pairing, choose_reading, turn_points
from calib.solve.refine import Fit, refine
from calib.solve.se3 import inverse, skew
from calib.target.targets import Target, tag_of
from rt.pose import Array

FEWEST_FOR_INTERVALS = 4
"""Of fewer poses no interval is printed; `calib.study --poses 3 4 5 6 8` measures them."""


@dataclass(frozen=True)
class Settings:
    """Choices of the user about a solution."""

    target: Target | None = None
    eye_in_hand: bool | None = None
    """None: as the recording says, else in the hand."""
    format: PoseFormat | None = None
    camera: LensModel | None = None
    intrinsics: str = "auto"
    """auto, given, estimate."""
    free_scale: bool = False
    working_m: float = 0.3
    tolerance_m: float = 1e-3
    seed: int = 0
    either_mount: bool = False
    """True: if nothing states the mount, the images decide it."""


@dataclass
class HandEyeResult:
    """Everything that a report needs."""

    recording: Recording
    settings: Settings
    target: Target
    views: Views
    """Views with a target, at the chosen reading of the poses."""
    judged: Judged
    reasons: dict[int, str]
    """Why views were left out, by index into `views`."""
    lens: Lens | None
    lens_refined: bool
    methods: dict[str, Array]
    """T_mount_camera of every closed form, on the kept views."""
    methods_held_out: dict[str, tuple[float, float]]
    """Of every closed form: error [m] and [deg] at views that it was not given; compare `left_out_m`."""
    error_m: Array
    """(N,) distance of the target's middle from where all views put it."""
    error_deg: Array
    error_px: Array
    """(N,) root mean square distance of corners from where the fit puts them."""
    left_out_m: Array
    """(N,) the same for a fit without the view."""
    left_out_deg: Array
    left_out_px: Array
    corner_px: Array
    """(M, 2) what no motion of the hand explains, of the kept views' corners."""
    advice: Advice
    scale: float
    """Freed size of the target over the stated one, and its standard deviation."""
    scale_sd: float
    scale_shift_m: float
    """Motion of the point at the working distance if the size is freed."""
    depth_ratio: float | None
    """Measured depth at the corners over the depth that the target's stated size implies."""
    belongs: bool = True
    """False if images and poses as a whole do not belong together; nothing finer means anything then."""
    reading: str = ""
    """Format and mount that were used, in words."""
    T_camera_nominal: Array = field(default_factory=lambda: np.eye(4))
    """Frame in which given target poses were fitted; the identity for images."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def fit(self) -> Fit:
        return self.judged.fit

    @property
    def T_mount_camera(self) -> Array:
        """The result (4, 4)."""
        return np.asarray(self.fit.state.T_mount_camera @ inverse(self.T_camera_nominal))

    @property
    def hand_eye_cov(self) -> Array:
        """(6, 6) of T_mount_camera: rotation [rad] then translation [m], both along the mount's axes."""
        arm = self.T_mount_camera[:3, 3] - self.fit.state.T_mount_camera[:3, 3]
        J = np.eye(6)
        J[3:, :3] = -skew(arm)
        return np.asarray(J @ self.fit.hand_eye_cov @ J.T)

    def point_cov(self, p_camera: Array) -> Array:
        """(3, 3) covariance [m^2] of a point of the camera's frame, seen in the mount's frame."""
        T = inverse(self.T_camera_nominal)
        return self.fit.point_cov(T[:3, :3] @ np.asarray(p_camera) + T[:3, 3])

    @property
    def intervals_hold(self) -> bool:
        """False for data of a kind for which the intervals were measured not to hold the truth."""
        return len(self.fit.views) >= FEWEST_FOR_INTERVALS

    def studentised_text(self, i: int) -> str:
        """Studentised residual of a view, in words."""
        z = float(self.judged.studentised[i])
        return f"{z:.0f} standard deviations" if z < 1e4 else "beyond measure"

    @property
    def keep(self) -> NDArray[np.bool_]:
        return self.judged.keep


def calibrate(
    recording: Recording, settings: Settings, progress: Progress = silent
) -> HandEyeResult:
    """The whole way from files to a judged solution; raises CalibrationError where there is none."""
    rng = np.random.default_rng(settings.seed)
    target = settings.target or recording.target
    if settings.camera is not None:
        recording.camera = settings.camera
    if settings.intrinsics == "estimate":
        recording.camera = None
    _drop_invalid(recording)
    if recording.entries and all(e.T_camera_target is not None for e in recording.entries):
        return _from_samples(recording, settings, target, rng)
    if target is None:
        raise CalibrationError("give --target: the recording does not say what it shows")
    sights = look(recording, target, progress)
    if len(sights) < 3:
        raise CalibrationError(
            f"the {target.spec} is seen in {len(sights)} images only "
            f"({listed([s.name for s in sights])}); at least 3 are needed, 15 are good"
        )
    points = [target.points()[s.detection.ids] for s in sights]
    pixels = [s.detection.pixels for s in sights]
    camera, lens, refined_lens = choose_lens(
        recording, settings.intrinsics, points, pixels, sights[0].size
    )
    progress("solving", 0, 1)
    seen_poses = np.array(
        [target_pose(camera, p, q).T_camera_target for p, q in zip(points, pixels, strict=True)]
    )
    index = np.array([s.index for s in sights])
    seen = TargetViews(index, seen_poses, target.symmetries(), _box(target), camera)
    T_base_hand, form, eye_in_hand = choose_reading(
        recording, settings.format, settings.eye_in_hand, settings.either_mount, seen, rng
    )
    stamps = [recording.entries[k].image_stamp_s for k in index]
    timed = recording.trajectory is not None and all(s is not None for s in stamps)
    views = Views(
        tuple(s.name for s in sights),
        T_base_hand[index],
        tuple(turn_points(points, seen, T_base_hand[index], eye_in_hand)),
        tuple(pixels),
        camera,
        eye_in_hand,
        True,
        recording.trajectory if timed else None,
        np.array(stamps, dtype=np.float64) if timed else None,
    )
    start, belongs = _start(recording, views, seen, T_base_hand, form, timed, rng)
    free = Free(settings.free_scale, timed, refined_lens)
    judged = judge(views, start, Free(False, timed), free if belongs else None, belongs)
    result = _examine(recording, settings, target, views, judged, lens, bool(refined_lens), rng)
    return replace(result, belongs=belongs, reading=_reading_text(form, eye_in_hand))


SIDES_M = (0.03, 0.06, 0.12, 0.24)
"""Tags that given poses may come from; the likeliest is taken."""


def _from_samples(
    recording: Recording, settings: Settings, target: Target | None, rng: np.random.Generator
) -> HandEyeResult:
    """Target poses instead of images: their noise is that of the corners of a tag.

    A tag's depth and tilt are far noisier than its place, by its size and distance. Without a stated
    target the size that explains the poses best is taken.
    """
    given = np.array([e.T_camera_target for e in recording.entries])
    T_camera_nominal = nominal_camera(given)
    solid = not np.array_equal(T_camera_nominal, np.eye(4))
    poses = inverse(T_camera_nominal) @ given
    names = [e.name for e in recording.entries]
    if solid:
        candidates: list[Target] = [tag_of(0.1, solid=True)]
    else:
        candidates = [target] if target is not None else [tag_of(s) for s in SIDES_M]
    index = np.arange(len(poses))
    nominal = virtual(poses, names, candidates[0])[3]
    seen = TargetViews(index, poses, candidates[0].symmetries()[:1], _box(candidates[0]), nominal)
    T_base_hand, form, eye_in_hand = choose_reading(
        recording, settings.format, settings.eye_in_hand, settings.either_mount, seen, rng
    )
    best: tuple[float, Target, Views, Consensus, bool] | None = None
    for one in candidates:
        _, points, pixels, camera = virtual(poses, names, one)
        views = Views(
            tuple(names), T_base_hand, tuple(points), tuple(pixels), camera, eye_in_hand, False
        )
        if best is None:
            start, belongs = _start(recording, views, seen, T_base_hand, form, False, rng)
        fit = refine(views.take(start.agreeing), start.state)
        cost = negative_log_likelihood(fit.level, fit.noise)
        if best is None or cost < best[0]:
            best = cost, one, views, replace(start, state=fit.state), belongs
    assert best is not None
    _, chosen, views, start, belongs = best
    free = Free(settings.free_scale)
    judged = judge(views, start, Free(), free if belongs else None, belongs)
    result = _examine(recording, settings, chosen, views, judged, None, False, rng)
    result.findings.append(
        Finding(
            "note",
            f"target poses without images, taken as {chosen.spec}: no image shows whether they are right",
            "images of a board tell ten times as much as poses of a tag",
        )
    )
    inside = inverse(T_camera_nominal)
    return replace(
        result,
        belongs=belongs,
        reading=_reading_text(form, eye_in_hand),
        T_camera_nominal=T_camera_nominal,
        methods={m: X @ inside for m, X in result.methods.items()},
    )


def _reading_text(form: PoseFormat, eye_in_hand: bool) -> str:
    return f"{form}, {'camera in the hand' if eye_in_hand else 'fixed camera'}"


def _box(target: Target) -> Array:
    """(4, 3): corners of the box around the target's points, in its plane."""
    lo, hi = target.points().min(axis=0), target.points().max(axis=0)
    return np.array([[x, y, 0.0] for x in (lo[0], hi[0]) for y in (lo[1], hi[1])])


def _start(
    recording: Recording,
    views: Views,
    seen: TargetViews,
    T_base_hand: Array,
    form: PoseFormat,
    timed: bool,
    rng: np.random.Generator,
) -> tuple[Consensus, bool]:
    """(a first transform, whether images and poses belong together); raises CalibrationError."""
    check_motion(views)
    start = consensus(views.fixed_mount(), target_poses(views), corners(views), views.camera, rng)
    belongs = check_pairing(
        recording, seen, T_base_hand, form, views.eye_in_hand, start, timed, rng
    )
    if start is None:
        raise CalibrationError("no subset of the views gives a transform; take more, varied poses")
    return start, belongs


def _drop_invalid(recording: Recording) -> None:
    bad = [
        k
        for k, row in enumerate(recording.rows)
        if not np.all(np.isfinite(row))
        or not np.all(np.isfinite(_or_zero(recording.entries[k].T_camera_target)))
    ]
    if bad:
        names = [recording.entries[k].name for k in bad]
        recording.findings.append(
            Finding("warning", f"poses with NaN or infinity are left out: {listed(names)}")
        )
        good = [k for k in range(len(recording.rows)) if k not in bad]
        recording.entries = [recording.entries[k] for k in good]
        recording.rows = recording.rows[good]
    if len(recording.entries) < 3:
        raise CalibrationError(
            f"{recording.source}: {len(recording.entries)} usable image-pose pairs; at least 3 are "
            "needed, 15 are good"
        )


def _examine(
    recording: Recording,
    settings: Settings,
    target: Target,
    views: Views,
    judged: Judged,
    lens: Lens | None,
    lens_refined: bool,
    rng: np.random.Generator,
) -> HandEyeResult:
    fit = judged.fit
    own = replace(views, camera=fit.state.camera)
    scaled = replace(own, points_m=tuple(p * fit.state.scale for p in own.points_m))
    seen = target_poses(scaled)
    error_m, error_deg = target_errors(own, fit.state, seen)
    A, C = own.fixed_mount(fit.state.dt_s)[judged.keep], seen[judged.keep]
    methods = {m: X for m in METHODS if (X := closed_form(A, C, m)) is not None}
    left_m, left_deg, left_px = (np.empty(len(views)) for _ in range(3))
    for i, state in enumerate(judged.left_out):
        one, one_seen = own.take([i]), seen[[i]]
        m, deg = target_errors(one, state, one_seen)
        left_m[i], left_deg[i] = m[0], deg[0]
        left_px[i] = _rms_px(one, state)[0]
    scale, scale_sd, shift = fit.state.scale, fit.scale_sd, 0.0
    if not fit.free.scale and len(fit.views) >= 4:
        freed = refine(fit.views, fit.state, replace(fit.free, scale=True), fit.noise)
        p = np.array([0, 0, settings.working_m])
        at = [
            s.T_mount_camera[:3, :3] @ p + s.T_mount_camera[:3, 3] for s in (fit.state, freed.state)
        ]
        scale, scale_sd = freed.state.scale, freed.scale_sd
        shift = float(np.linalg.norm(at[0] - at[1]))
    all_points = target.points()
    return HandEyeResult(
        recording,
        settings,
        target,
        views,
        judged,
        explain(views, judged),
        lens,
        lens_refined,
        methods,
        held_out(A, C, fit.state.scale * np.mean(np.concatenate(own.points_m), axis=0)),
        error_m,
        error_deg,
        _rms_px(own, fit.state),
        left_m,
        left_deg,
        left_px,
        fit.level.rest_px.reshape(-1, 2),
        advise(fit, all_points, settings.working_m, rng),
        scale,
        scale_sd,
        shift,
        depth_ratio(recording, views, scaled, seen),
        findings=list(recording.findings),
    )


def _or_zero(T: Array | None) -> Array:
    return np.zeros((4, 4)) if T is None else T


def _rms_px(views: Views, state: Unknowns) -> Array:
    T = target_in_camera(views, state)
    result = np.empty(len(views))
    for i, (p, q) in enumerate(zip(views.points_m, views.pixels, strict=True)):
        uv, _ = project(state.camera, state.scale * p @ T[i, :3, :3].T + T[i, :3, 3])
        result[i] = np.sqrt(np.mean(np.sum((uv - q) ** 2, axis=1)))
    return result
