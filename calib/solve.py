"""From a recording to a transform, its uncertainty, and what speaks against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.closed_form import (
    METHODS,
    closed_form,
    rotation_spread,
    target_errors,
    target_pose,
    target_poses,
)
from calib.dataset import Recording, read_depth
from calib.detect import LEAST_POINTS, Detection, detect, read_image, why_not
from calib.diagnose import SEEN_ENOUGH_M, Reading, Seen, format_readings, misreadings, rank
from calib.errors import CalibrationError, Finding
from calib.intrinsics import Lens, estimate
from calib.model import Camera, Free, State, Views, project, target_in_camera
from calib.motions import Advice, advise
from calib.outliers import Consensus, Judged, consensus, corners, explain, judge
from calib.poses import PoseFormat
from calib.refine import Fit, refine
from calib.se3 import inverse
from calib.targets import Target
from rt.pose import Array


@dataclass(frozen=True)
class Settings:
    """What the user may fix about a solution."""

    target: Target | None = None
    eye_in_hand: bool | None = None
    """None: as the recording says, else whichever fits."""
    format: PoseFormat | None = None
    camera: Camera | None = None
    intrinsics: str = "auto"
    """auto, given, estimate."""
    free_scale: bool = False
    working_m: float = 0.3
    tolerance_m: float = 1e-3
    seed: int = 0


@dataclass
class Sight:
    """What was seen in one image."""

    name: str
    index: int
    """Row of the recording."""
    detection: Detection


@dataclass
class Result:
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
    """How far the point at the working distance moves if the size is freed."""
    depth_ratio: float | None
    """Measured depth at the corners over the depth that the target's stated size implies."""
    belongs: bool = True
    """False if images and poses as a whole do not belong together; nothing finer means anything then."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def fit(self) -> Fit:
        return self.judged.fit

    def studentised_text(self, i: int) -> str:
        """How far a view is out, in words."""
        z = float(self.judged.studentised[i])
        return f"{z:.0f} standard deviations" if z < 1e4 else "beyond measure"

    @property
    def keep(self) -> NDArray[np.bool_]:
        return self.judged.keep


Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    pass


def look(recording: Recording, target: Target, progress: Progress = silent) -> list[Sight]:
    """Detect the target in every image of the recording; adds findings to it.

    Raises CalibrationError for mixed sizes and where the target is found nowhere.
    """
    sights, sizes, digests = [], {}, {}
    blind: list[str] = []
    images = []
    for k, entry in enumerate(recording.entries):
        if entry.image is None:
            continue
        progress("looking for the target", k, len(recording.entries))
        image = read_image(str(entry.image))
        sizes.setdefault(image.shape[::-1], []).append(entry.name)
        digests.setdefault(hash(image.tobytes()), []).append(k)
        found = detect(target, image)
        if found is None:
            blind.append(entry.name)
            if len(images) < 4:
                images.append(image)
        else:
            sights.append(Sight(entry.name, k, found))
    progress("looking for the target", len(recording.entries), len(recording.entries))
    if len(sizes) > 1:
        common = max(sizes, key=lambda s: len(sizes[s]))
        odd = [f"{n} is {s[0]}x{s[1]}" for s, names in sizes.items() if s != common for n in names]
        raise CalibrationError(
            f"images of different sizes: most are {common[0]}x{common[1]}, but {listed(odd)}; remove "
            "them or take all with one setting of the camera"
        )
    if not sights:
        raise CalibrationError(
            f"no {target.spec} is found in any of {len(blind)} images ({listed(blind)}); "
            + why_not(target, images)
        )
    if blind:
        hint = why_not(target, images) if len(sights) < 3 else ""
        recording.findings.append(
            Finding("note", f"no target seen in {len(blind)} images: {listed(blind)}", hint)
        )
    twins: set[int] = set()
    for group in digests.values():
        if len(group) > 1:
            names = [recording.entries[k].name for k in group]
            recording.findings.append(
                Finding(
                    "warning",
                    f"{listed(names)} are the same image; only the first counts",
                    "was the camera's picture stale? take them again",
                )
            )
            twins.update(group[1:])
    size = next(iter(sizes))
    if recording.camera is not None:
        recording.camera = _of_size(recording.camera, size)
    return [s for s in sights if s.index not in twins]


def _of_size(camera: Camera, size: tuple[int, int]) -> Camera:
    if camera.width == 0:
        return replace(camera, width=size[0], height=size[1])
    if (camera.width, camera.height) != size:
        raise CalibrationError(
            f"the intrinsics are for {camera.width}x{camera.height} images, these are "
            f"{size[0]}x{size[1]}; give those of this stream, or --intrinsics estimate"
        )
    return camera


def listed(names: list[str], most: int = 6) -> str:
    """a, b, c and 4 more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def calibrate(recording: Recording, settings: Settings, progress: Progress = silent) -> Result:
    """The whole way from files to a judged solution; raises CalibrationError where there is none."""
    rng = np.random.default_rng(settings.seed)
    target = settings.target or recording.target
    if settings.camera is not None:
        recording.camera = settings.camera
    _drop_invalid(recording)
    pairs = [e.T_camera_target for e in recording.entries]
    if all(T is not None for T in pairs) and pairs:
        target = target or Target("chessboard", 5, 4, 0.025)
        sights, points, pixels, camera = _virtual(recording, target)
        lens, refined_lens = None, ()
    else:
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
        camera, lens, refined_lens = _choose_lens(recording, settings, points, pixels)
    progress("solving", 0, 1)
    index = np.array([s.index for s in sights])
    seen_poses = np.array([target_pose(camera, p, q).T_camera_target for p, q in zip(points, pixels, strict=True)])  # fmt: skip
    all_corners = target.points()
    lo, hi = all_corners.min(axis=0), all_corners.max(axis=0)
    box = np.array([[x, y, 0.0] for x in (lo[0], hi[0]) for y in (lo[1], hi[1])])
    real = lens is not None or recording.entries[0].image is not None
    symmetries = target.symmetries() if real else [np.eye(4)]
    seen = Seen(index, seen_poses, symmetries, box, camera)
    T_base_hand, form, eye_in_hand = _read_poses(recording, settings, seen, rng)
    moved_points = _turn_points(points, seen, T_base_hand[index], eye_in_hand)
    trajectory = recording.trajectory
    stamps = [recording.entries[k].image_stamp_s for k in index]
    timed = trajectory is not None and all(s is not None for s in stamps)
    views = Views(
        tuple(s.name for s in sights),
        T_base_hand[index],
        tuple(moved_points),
        tuple(pixels),
        camera,
        eye_in_hand,
        real,
        trajectory if timed else None,
        np.array(stamps, dtype=np.float64) if timed else None,
    )
    _check_motion(views)
    C = target_poses(views)
    start = consensus(views.fixed_mount(), C, corners(views), camera, rng)
    belongs = _check_pairing(recording, seen, T_base_hand, form, eye_in_hand, start, timed, rng)
    if start is None:
        raise CalibrationError("no subset of the views gives a transform; take more, varied poses")
    free = Free(settings.free_scale, timed, refined_lens)
    judged = judge(views, start, Free(False, timed), free)
    result = _examine(recording, settings, target, views, judged, lens, bool(refined_lens), rng)
    return replace(result, belongs=belongs)


def _drop_invalid(recording: Recording) -> None:
    bad = [
        k
        for k, row in enumerate(recording.rows)
        if not np.all(np.isfinite(row))
        or (
            recording.entries[k].T_camera_target is not None
            and not np.all(np.isfinite(recording.entries[k].T_camera_target))
        )
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


def _virtual(
    recording: Recording, target: Target
) -> tuple[list[Sight], list[Array], list[Array], Camera]:
    """Target poses without images, as if a perfect camera had seen a board there."""
    camera = Camera(1000, 1000, 1000.0, 1000.0, 499.5, 499.5)
    points = target.points()
    sights, pixels = [], []
    for k, entry in enumerate(recording.entries):
        T = entry.T_camera_target
        assert T is not None
        p = points @ T[:3, :3].T + T[:3, 3]
        if np.any(p[:, 2] <= 0.01):
            recording.findings.append(
                Finding("warning", f"{entry.name}: the target is behind the camera; left out")
            )
            continue
        uv = project(camera, p)[0]
        sights.append(Sight(entry.name, k, Detection(np.arange(len(points)), uv)))
        pixels.append(uv)
    if len(sights) < 3:
        raise CalibrationError(
            f"{recording.source}: fewer than 3 samples have the target before the camera; "
            "are the target poses inverted (T_target_camera)?"
        )
    return sights, [points] * len(sights), pixels, camera


def _choose_lens(
    recording: Recording, settings: Settings, points: list[Array], pixels: list[Array]
) -> tuple[Camera, Lens | None, tuple[int, ...]]:
    """The intrinsics to use, those estimated from the images, and which to refine jointly."""
    given = recording.camera
    image = recording.entries[0].image
    assert image is not None
    height, width = read_image(str(image)).shape
    if given is not None:
        given = _of_size(given, (width, height))
    if given is None and settings.intrinsics == "given":
        raise CalibrationError("--intrinsics given, but there are none; name a file with --camera")
    try:
        lens = estimate(points, pixels, (width, height))
    except CalibrationError as error:
        if given is None or settings.intrinsics == "estimate":
            raise
        recording.findings.append(
            Finding("note", f"the given intrinsics were not checked: {error}")
        )
        return given, None, ()
    if given is None:
        recording.findings.append(
            Finding(
                "note",
                f"the intrinsics are estimated from {len(points)} of the same images "
                f"(f = {lens.camera.fx:.1f}, {lens.camera.fy:.1f} px, {lens.rms_px:.2f} px rms)",
            )
        )
        return lens.camera, lens, lens.free
    if settings.intrinsics == "estimate":
        return lens.camera, lens, lens.free
    own = np.concatenate([_reprojection(given, p, q) for p, q in zip(points, pixels, strict=True)])
    rms = float(np.sqrt(np.mean(np.sum(own**2, axis=1))))
    floor = max(lens.rms_px, 0.05)
    if rms < 1.3 * floor + 0.05 or settings.intrinsics == "given":
        level = "note" if rms < 1.3 * floor + 0.05 else "warning"
        recording.findings.append(
            Finding(
                level,  # type: ignore[arg-type]
                f"the given intrinsics leave {rms:.2f} px rms, the best for these images "
                f"{lens.rms_px:.2f} px",
                "" if level == "note" else "calibrate the lens, or give --intrinsics estimate",
            )
        )
        return given, lens, ()
    recording.findings.append(
        Finding(
            "warning",
            f"the given intrinsics do not fit the images: {rms:.2f} px rms with f = {given.fx:.1f} px, "
            f"{lens.rms_px:.2f} px with f = {lens.camera.fx:.1f} px estimated from them; the estimate is used",
            "check that they belong to this camera, stream and resolution (--intrinsics given keeps them)",
        )
    )
    return lens.camera, lens, lens.free


def _reprojection(camera: Camera, points: Array, pixels: Array) -> Array:
    T = target_pose(camera, points, pixels).T_camera_target
    return np.asarray(project(camera, points @ T[:3, :3].T + T[:3, 3])[0] - pixels)


def _read_poses(
    recording: Recording, settings: Settings, seen: Seen, rng: np.random.Generator
) -> tuple[Array, PoseFormat, bool]:
    """(T_base_hand (N, 4, 4), its format, camera in the hand): as stated, else whichever fits."""
    form = settings.format or recording.format
    in_hand = settings.eye_in_hand if settings.eye_in_hand is not None else recording.eye_in_hand
    if form is not None and in_hand is not None:
        return recording.read_poses(form), form, in_hand
    if form is None:
        readings = format_readings(recording.rows, seen, in_hand)
    else:
        T = recording.read_poses(form)
        readings = []
        for one in (True, False) if in_hand is None else (in_hand,):
            A = (T if one else inverse(T))[seen.index]
            readings.append(
                Reading(
                    "camera in the hand" if one else "fixed camera",
                    f"--camera-is {'in-hand' if one else 'fixed'}",
                    A,
                    seen.mismatch_deg(A),
                    key=(form, one),
                )
            )
    if not readings:
        form = PoseFormat("matrix" if recording.rows.shape[1] == 16 else "quat_xyzw")
        recording.read_poses(form)  # says what is wrong with the numbers
        raise CalibrationError(f"{recording.pose_files}: the poses fit no known format")
    ranked = rank(readings, seen, rng)
    best = ranked[0]
    form, one = best.key  # type: ignore[misc]
    rival = ranked[1] if len(ranked) > 1 else None
    said = "; ".join(f"{r.label}: {r.scale_m * 1e3:.1f} mm" for r in ranked[:3])
    if rival is not None and best.scale_m > 0.5 * rival.scale_m:
        recording.findings.append(
            Finding(
                "warning",
                f"{recording.pose_files} does not state how its poses are written, and the images do "
                f"not decide it clearly ({said})",
                "state it with --pose-format and --camera-is",
            )
        )
    else:
        recording.findings.append(
            Finding(
                "note",
                f"{recording.pose_files} does not say how its poses are written; read as {best.label}, "
                f"which fits best ({said})",
            )
        )
    return recording.read_poses(form), form, one


def _turn_points(
    points: list[Array], seen: Seen, T_base_hand: Array, eye_in_hand: bool
) -> list[Array]:
    """Points of a symmetric target renumbered such that it lies the same way round in all views."""
    from calib.diagnose import resolve_symmetry

    A = T_base_hand if eye_in_hand else inverse(T_base_hand)
    choice = resolve_symmetry(A, seen.T_camera_target, seen.symmetries)
    turned = []
    for p, k in zip(points, choice, strict=True):
        S = inverse(seen.symmetries[k])
        turned.append(p @ S[:3, :3].T + S[:3, 3])
    return turned


def _check_motion(views: Views) -> None:
    largest, second = rotation_spread(views.fixed_mount())
    where = f"{len(views)} poses ({views.names[0]} ... {views.names[-1]})"
    if largest < 3:
        raise CalibrationError(
            f"the {where} differ by {largest:.1f} deg of rotation at most: nearly pure translation, "
            "from which no hand-eye transform follows; turn the hand by 20 deg and more between poses"
        )
    if second < 1.0:
        raise CalibrationError(
            f"the {where} turn about parallel axes only ({second:.2f} deg about any other): the "
            "translation along that axis cannot be known; tilt the hand about a second axis too"
        )
    if np.median(np.linalg.norm(views.T_base_hand[:, :3, 3], axis=1)) > 20:
        raise CalibrationError(
            "the hand is "
            f"{np.median(np.linalg.norm(views.T_base_hand[:, :3, 3], axis=1)):.0f} m from its base: "
            "positions are in millimetres; add :mm to --pose-format"
        )


def _check_pairing(
    recording: Recording,
    seen: Seen,
    T_base_hand: Array,
    form: PoseFormat,
    eye_in_hand: bool,
    start: Consensus | None,
    timed: bool,
    rng: np.random.Generator,
) -> bool:
    """Where images and poses disagree grossly, look for another reading and say so; False then."""
    spread = start.scale_m if start else np.inf
    limit = SEEN_ENOUGH_M * (3 if timed else 1)
    A = (T_base_hand if eye_in_hand else inverse(T_base_hand))[seen.index]
    if spread < limit:
        return True
    recording.findings.append(
        Finding(
            "error",
            f"images and robot poses do not belong together: the target moves by "
            f"{spread * 1e3:.0f} mm from view to view (typical), rotations differ by "
            f"{seen.mismatch_deg(A):.1f} deg",
        )
    )
    readings = misreadings(T_base_hand, recording.rows, form, seen, eye_in_hand)
    ranked = rank(readings, seen, rng) if readings else []
    if ranked and ranked[0].scale_m < 0.4 * spread:
        best = ranked[0]
        recording.findings.append(
            Finding(
                "error",
                f"most likely {best.label}: then the target stays within {best.scale_m * 1e3:.1f} mm",
                best.remedy,
            )
        )
    elif (mirrored := _mirrored(seen, A, rng)) < 0.4 * spread:
        recording.findings.append(
            Finding(
                "error",
                f"most likely the images are mirrored: unmirrored, the target stays within "
                f"{mirrored * 1e3:.1f} mm",
                "switch off the camera's mirror mode",
            )
        )
    else:
        recording.findings.append(
            Finding(
                "error",
                "no common mistake explains it",
                "check that images and poses are in the same order, that the target did not move, and "
                "that the poses are of the hand that carries the camera",
            )
        )


def _mirrored(seen: Seen, T_fixed_mount: Array, rng: np.random.Generator) -> float:
    """Spread [m] of the target if every image was mirrored left to right, for a symmetric board."""
    F = np.diag([-1.0, 1, 1, 1])
    # mirroring the image mirrors the world in x; mirroring the board's own x makes it rigid again
    lo, hi = seen.corners.min(axis=0), seen.corners.max(axis=0)
    G = F.copy()
    G[0, 3] = lo[0] + hi[0]
    unmirrored = replace(seen, T_camera_target=F @ seen.T_camera_target @ G)
    C = unmirrored.resolved(T_fixed_mount)
    found = consensus(T_fixed_mount, C, seen.corners, seen.camera, rng, draws=60)
    return found.scale_m if found else np.inf


def _examine(
    recording: Recording,
    settings: Settings,
    target: Target,
    views: Views,
    judged: Judged,
    lens: Lens | None,
    lens_refined: bool,
    rng: np.random.Generator,
) -> Result:
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
    return Result(
        recording,
        settings,
        target,
        views,
        judged,
        explain(views, judged),
        lens,
        lens_refined,
        methods,
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


def _rms_px(views: Views, state: State) -> Array:
    T = target_in_camera(views, state)
    result = np.empty(len(views))
    for i, (p, q) in enumerate(zip(views.points_m, views.pixels, strict=True)):
        uv, _ = project(state.camera, state.scale * p @ T[i, :3, :3].T + T[i, :3, 3])
        result[i] = np.sqrt(np.mean(np.sum((uv - q) ** 2, axis=1)))
    return result


def depth_ratio(
    recording: Recording, views: Views, scaled: Views, T_camera_target: Array
) -> float | None:
    """Median of measured depth at the corners over the depth of the fitted target; None without depth."""
    by_name = {e.name: e.depth for e in recording.entries}
    ratios = []
    for i, name in enumerate(views.names):
        if (path := by_name.get(name)) is None:
            continue
        depth = read_depth(path)
        if depth.shape != (views.camera.height, views.camera.width):
            continue
        at = views.pixels[i][None].astype(np.float32)
        holes = cv2.remap((depth <= 0).astype(np.float32), at, None, cv2.INTER_LINEAR)[0]
        measured = cv2.remap(depth, at, None, cv2.INTER_LINEAR)[0]
        T = T_camera_target[i]
        expected = scaled.points_m[i] @ T[2, :3] + T[2, 3]
        ok = (holes == 0) & (expected > 0.05)
        ratios += list(measured[ok] / expected[ok])
    return float(np.median(ratios)) if len(ratios) >= LEAST_POINTS else None


def next_pose_name(T: Array) -> str:
    """A hand pose as one line: position in mm and rotation vector in degrees."""
    from calib.se3 import to_vector

    v = to_vector(T)
    turn = np.degrees(v[:3])
    return (
        f"({v[3] * 1e3:.0f}, {v[4] * 1e3:.0f}, {v[5] * 1e3:.0f}) mm, rotation vector "
        f"({turn[0]:.0f}, {turn[1]:.0f}, {turn[2]:.0f}) deg"
    )
