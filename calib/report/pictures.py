"""The pictures of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from calib.collect.collect import draw_detection
from calib.solve.model import Unknowns, target_in_camera
from calib.solve.motions import PARAMETERS, middle_of
from calib.solve.se3 import inverse
from calib.solve.solver import HandEyeResult
from calib.solve.verdict import claim
from calib.target.detect import Detection, read_image
from rt.pose import Array
from rt.tools.files import write_figure

KEPT, OUT, NEXT, INK = "#2a78a8", "#d0342c", "#e8a100", "#222222"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def detections(result: HandEyeResult, path: Path, most: int = 24) -> bool:
    """Contact sheet of the images with their points; what was left out has a red frame."""
    by_name = {e.name: e.image for e in result.recording.entries}
    order = sorted(range(len(result.views)), key=lambda i: bool(result.keep[i]))[:most]
    tiles = []
    for i in sorted(order):
        image = by_name.get(result.views.names[i])
        if image is None:
            return False
        picture = read_image(str(image))
        width = 320
        zoom = width / picture.shape[1]
        size = (width, round(picture.shape[0] * zoom))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        pixels = (result.views.pixels[i] + 0.5) * zoom - 0.5
        picture = draw_detection(picture, Detection(np.arange(len(pixels)), pixels))
        kept = bool(result.keep[i])
        bar = np.full((26, width, 3), 245, np.uint8)
        text = f"{result.views.names[i][-22:]}  {min(result.left_out_m[i] * 1e3, 9999):.2f} mm" + (
            "" if kept else "  LEFT OUT"
        )
        colour = (40, 40, 40) if kept else (44, 52, 208)
        cv2.putText(bar, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        tile = np.vstack([picture, bar])
        if not kept:
            cv2.rectangle(tile, (0, 0), (width - 1, tile.shape[0] - 1), colour, 4)
        tiles.append(cv2.copyMakeBorder(tile, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255,) * 3))
    columns = min(5, len(tiles))
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return True


def residuals(result: HandEyeResult, path: Path) -> None:
    """Corners of all kept views, and every view against what the others predict."""
    figure = _figure(11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    if result.views.pixels_are_real:
        r, sd = result.corner_px, result.fit.noise.pixel_px
        left.scatter(r[:, 0], r[:, 1], s=5, color=KEPT, alpha=0.5, linewidths=0)
        ring = np.linspace(0, 2 * np.pi, 100)
        for k in (1, 2):
            left.plot(k * sd * np.cos(ring), k * sd * np.sin(ring), color=INK, lw=0.7)
        limit = max(4 * sd, float(np.quantile(np.abs(r), 0.995)) * 1.1)
        left.set(
            xlim=(-limit, limit),
            ylim=(limit, -limit),
            xlabel="u [px]",
            ylabel="v [px]",
            title=f"corners, robot's share removed (σ = {sd:.3f} px)",
        )
        left.set_aspect("equal")
    else:
        left.axis("off")
        left.text(0.5, 0.5, "target poses were given,\nno images", ha="center", va="center")
    x = np.arange(len(result.views))
    colours = [KEPT if k else OUT for k in result.keep]
    mm = result.left_out_m * 1e3
    top = 1.3 * float(np.max(mm[result.keep]))
    right.bar(x, np.minimum(mm, top), color=colours, width=0.75)
    for i in np.flatnonzero(mm > top):
        right.text(
            i, top, f"{mm[i]:.3g}", ha="center", va="top", fontsize=8, color="white", rotation=90
        )
    rms = float(np.sqrt(np.mean(mm[result.keep] ** 2)))
    right.axhline(rms, color=INK, lw=0.8, ls="--")
    right.text(len(x) - 0.4, rms, f"rms {rms:.2f}", va="bottom", ha="right", fontsize=8)
    right.set(
        title="target's place in each view against the other views' prediction",
        ylabel="held-out error [mm]",
        xlim=(-0.6, len(x) - 0.4),
    )
    step = max(1, len(x) // 25)
    names = [n[-14:] for n in result.views.names]
    right.set_xticks(x[::step], names[::step], rotation=60, ha="right", fontsize=7)
    write_figure(figure, path, dpi=110)


def scene(result: HandEyeResult, path: Path) -> None:
    """Cameras, hands and target in 3D, in the frame where the target rests."""
    figure = _figure(8.5, 6.5)
    axes: Any = figure.add_subplot(projection="3d")
    fit = result.fit
    camera = fit.state.camera
    A = result.views.fixed_mount(fit.state.dt_s)
    everything = []
    points = result.target.points() * fit.state.scale
    lo, hi = points.min(axis=0), points.max(axis=0)
    ring = ((lo[0], lo[1]), (hi[0], lo[1]), (hi[0], hi[1]), (lo[0], hi[1]), (lo[0], lo[1]))
    box = np.array([[x, y, 0, 1] for x, y in ring])
    board = (box @ fit.state.T_fixed_target.T)[:, :3]
    axes.plot_trisurf(*board[:4].T, triangles=[[0, 1, 2], [0, 2, 3]], color="#bbbbbb", alpha=0.9)
    axes.plot(*board.T, color=INK, lw=1)
    everything.append(board)
    reach = 0.25 * float(
        np.median(np.linalg.norm(target_in_camera(result.views, fit.state)[:, :3, 3], axis=1))
    )
    for i, T in enumerate(A @ fit.state.T_mount_camera):
        everything.append(_frustum(axes, T, camera, reach, KEPT if result.keep[i] else OUT))
        origin = A[i, :3, 3]
        if result.views.eye_in_hand:
            axes.plot(*np.stack([origin, T[:3, 3]]).T, color="#999999", lw=0.8)
            axes.scatter(*origin, color="#666666", s=6)
            everything.append(origin[None])
    if result.advice.next_T_base_hand is not None:
        N = result.advice.next_T_base_hand
        N = (N if result.views.eye_in_hand else inverse(N)) @ fit.state.T_mount_camera
        everything.append(_frustum(axes, N, camera, reach, NEXT))
    xyz = np.concatenate(everything)
    middle, half = (xyz.max(axis=0) + xyz.min(axis=0)) / 2, np.ptp(xyz, axis=0).max() / 2
    for k, name in enumerate("xyz"):
        getattr(axes, f"set_{name}lim")(middle[k] - half, middle[k] + half)
        getattr(axes, f"set_{name}label")(f"{name} [m]")
    axes.set_box_aspect((1, 1, 1))
    axes.view_init(22, -60)
    frame = "base" if result.views.eye_in_hand else "hand"
    axes.set_title(
        f"cameras and target in the {frame}'s frame (red: left out, yellow: next pose)", fontsize=10
    )
    write_figure(figure, path, dpi=110)


def _frustum(axes: Any, T: Array, camera: Any, reach: float, colour: str) -> Array:
    u = np.array([0, camera.width, camera.width, 0, 0])
    v = np.array([0, 0, camera.height, camera.height, 0])
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(5)], axis=1)
    corners = reach * rays @ T[:3, :3].T + T[:3, 3]
    axes.plot(*corners.T, color=colour, lw=0.9)
    for c in corners[:4]:
        axes.plot(*np.stack([T[:3, 3], c]).T, color=colour, lw=0.5)
    return np.asarray(np.vstack([corners, T[:3, 3]]))


def coverage(result: HandEyeResult, path: Path) -> None:
    """Points in the image, viewing directions, and how well the motions determine each parameter."""
    figure = _figure(12, 4.2)
    image, score = figure.add_subplot(1, 3, 1), figure.add_subplot(1, 3, 3)
    polar: Any = figure.add_subplot(1, 3, 2, projection="polar")
    camera = result.fit.state.camera
    xy = np.concatenate([p for p, k in zip(result.views.pixels, result.keep, strict=True) if k])
    counts, _, _ = np.histogram2d(
        xy[:, 1], xy[:, 0], bins=(12, 16), range=((0, camera.height), (0, camera.width))
    )
    shown = image.imshow(
        np.where(counts > 0, counts, np.nan),
        extent=(0, camera.width, camera.height, 0),
        cmap="viridis",
    )
    figure.colorbar(shown, ax=image, shrink=0.7, label="points")
    image.set(title="points in the image (white: none)", xlabel="u [px]", ylabel="v [px]")
    T = inverse(target_in_camera(result.views, result.fit.state))
    out = T[:, :3, 3] - middle_of(result.target.points())
    azimuth = np.arctan2(out[:, 1], out[:, 0])
    tilt = np.degrees(np.arctan2(np.hypot(out[:, 0], out[:, 1]), -out[:, 2]))
    polar.scatter(azimuth, tilt, c=[KEPT if k else OUT for k in result.keep], s=26)
    if (v := result.advice.next_viewpoint) is not None:
        polar.scatter(np.radians(v.azimuth_deg), v.tilt_deg, c=NEXT, marker="*", s=140, zorder=3)
    polar.set_title(
        "viewing directions: tilt [deg] by azimuth\n(star: the pose to add next)", fontsize=10
    )
    polar.set_rlabel_position(100)
    names = [*PARAMETERS, "point"]
    values = np.append(result.advice.score, result.advice.overall) * 100
    colours = [OUT if s < 35 else NEXT if s < 60 else KEPT for s in np.nan_to_num(values)]
    score.barh(names[::-1], np.nan_to_num(values)[::-1], color=colours[::-1])
    score.set(
        xlim=(0, 100), title="what the motions determine", xlabel="% of as many well-chosen poses"
    )
    write_figure(figure, path, dpi=110)


def parameters(result: HandEyeResult, path: Path, truth: Unknowns | None = None) -> None:
    """The six parameters with their 95 % intervals, beside the closed forms (and the truth)."""
    figure = _figure(11, 4.6)
    half = claim(result).half_width
    X = result.T_mount_camera
    places = np.vstack([_difference(X, T) for T in result.methods.values()] or [np.zeros((0, 6))])
    for k, axes in enumerate(figure.subplots(2, 3).ravel()):
        scale = 1e3 if k < 3 else 1.0
        axes.axvspan(-half[k] * scale, half[k] * scale, color=KEPT, alpha=0.25)
        axes.axvline(0, color=KEPT, lw=2)
        for row, (name, place) in enumerate(zip(result.methods, places, strict=True)):
            value = place[k] * scale
            limit = 6 * half[k] * scale
            axes.plot(
                np.clip(value, -limit, limit),
                row,
                "o" if abs(value) < limit else "x",
                color=INK,
                ms=5,
            )
            axes.annotate(
                name, (0.01, row), xycoords=("axes fraction", "data"), fontsize=7, va="center"
            )
        if truth is not None:
            axes.axvline(
                _difference(X, truth.T_mount_camera)[k] * scale, color=OUT, lw=1.6, ls="--"
            )
        axes.set_yticks([])
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_xlim(-6.6 * half[k] * scale, 6.6 * half[k] * scale)
        unit = "mdeg" if k < 3 else "mm"
        axes.set_title(f"{PARAMETERS[k]}  ±{half[k] * scale:.3g} {unit}", fontsize=10)
        axes.set_xlabel(f"difference [{unit}]", fontsize=8)
    text = "difference from the joint result; band: claimed 95 %; points: closed forms (x: further out)"
    figure.suptitle(text + ("; dashed: the truth" if truth else ""), fontsize=10)
    write_figure(figure, path, dpi=110)


def _difference(X: Array, T: Array) -> Array:
    """(6,): rotation [deg] and translation [mm] from X to T along the mount's axes."""
    turn = Rotation.from_matrix(T[:3, :3] @ X[:3, :3].T).as_rotvec(degrees=True)
    return np.concatenate([turn, (T[:3, 3] - X[:3, 3]) * 1e3])


def all_pictures(
    result: HandEyeResult, out: Path, truth: Unknowns | None = None
) -> dict[str, Path]:
    """Draw everything into a folder; returns titles and files."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    parameters(result, out / "parameters.png", truth)
    files["Parameters and methods"] = out / "parameters.png"
    residuals(result, out / "residuals.png")
    files["Residuals"] = out / "residuals.png"
    coverage(result, out / "coverage.png")
    files["Coverage and motion"] = out / "coverage.png"
    scene(result, out / "scene.png")
    files["Scene"] = out / "scene.png"
    if detections(result, out / "detections.png"):
        files["Detections"] = out / "detections.png"
    return files
