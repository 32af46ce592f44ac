"""The projection's derivatives, the noise model and the refinement, against plain NumPy and the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.collect.rig import LENS, random_truth, simulated_views
from calib.solve.closed_form import METHODS, closed_form, target_poses, with_target
from calib.solve.model import Free, LensModel, Problem, Trajectory, Unknowns, Views, moved, project
from calib.solve.motions import (
    advise,
    invert,
    middle_of,
    pose_information,
    random_viewpoints,
    seen_fraction,
    working_matrix,
)
from calib.solve.noise import Noise, covariance, information, reduce
from calib.solve.refine import refine
from calib.solve.se3 import adjoint, angle_deg, from_vector, inverse, to_vector
from calib.target.targets import Target

POINTS = Target().points()
NOISE = Noise(0.1, 2e-4, float(np.radians(0.02)))


def views_of(
    seed: int, count: int = 12, noise: Noise = NOISE, eye_in_hand: bool = True, scale: float = 1.0
):
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    truth = Unknowns(truth.T_mount_camera, truth.T_fixed_target, truth.camera, scale)
    return truth, simulated_views(rng, truth, POINTS, count, noise, eye_in_hand)


def start(views: Views) -> Unknowns:
    A, C = views.fixed_mount(), target_poses(views)
    return with_target(closed_form(A, C), A, C, views.camera)


def plain_projection(camera: LensModel, p: np.ndarray) -> np.ndarray:
    """Brown-Conrady as in OpenCV's documentation."""
    k1, k2, p1, p2, k3 = camera.dist
    x, y = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([camera.fx * xd + camera.cx, camera.fy * yd + camera.cy], axis=-1)


def test_projection_is_brown_conrady():
    rng = np.random.default_rng(0)
    p = np.c_[rng.uniform(-0.2, 0.2, (50, 2)), rng.uniform(0.3, 0.6, 50)]
    np.testing.assert_allclose(project(LENS, p)[0], plain_projection(LENS, p), atol=1e-9)


@pytest.mark.parametrize("eye_in_hand", [True, False])
def test_derivatives_match_differences(eye_in_hand):
    truth, views = views_of(1, 4, eye_in_hand=eye_in_hand)
    free = Free(scale=True, intrinsics=tuple(range(9)))
    problem = Problem(views, free)
    theta = np.random.default_rng(2).normal(0, 0.01, free.size)
    theta[13:17] *= 100
    lin = problem.linearise(moved(truth, theta, free), theta)
    for k in range(free.size):
        step = np.zeros(free.size)
        step[k] = 1e-6
        ahead, behind = (problem.residual(moved(truth, theta + s * step, free)) for s in (1, -1))
        number = (ahead - behind) / 2e-6
        np.testing.assert_allclose(lin.J[:, k], number, atol=1e-5 * np.abs(number).max())


@pytest.mark.parametrize("eye_in_hand", [True, False])
def test_hand_derivative_matches_differences(eye_in_hand):
    truth, views = views_of(3, 3, eye_in_hand=eye_in_hand)
    lin = Problem(views, Free()).linearise(truth)
    for k in range(6):
        step = np.zeros(6)
        step[k] = 1e-6
        ahead, behind = (
            Problem(views.with_poses(views.T_base_hand @ from_vector(s * step)), Free()).residual(
                truth
            )
            for s in (1, -1)
        )
        number = (ahead - behind) / 2e-6
        np.testing.assert_allclose(lin.D[:, k], number, atol=1e-5 * np.abs(number).max())


@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12))
@settings(max_examples=30, deadline=None)
def test_adjoint_moves_twists(numbers):
    T, xi = from_vector(numbers[:6]), 1e-4 * np.array(numbers[6:])
    left, right = T @ from_vector(xi) @ inverse(T), from_vector(adjoint(T) @ xi)
    np.testing.assert_allclose(left, right, atol=3e-8)


def test_pose_level_covariance_is_that_of_whole_views():
    """Reduced to hand motions, a view carries the same information as all its correlated corners."""
    truth, views = views_of(4, 1)
    lin = Problem(views, Free()).linearise(truth)
    level = reduce(lin, 12)
    S = np.diag(NOISE.robot_variance)
    W = np.linalg.inv(NOISE.pixel_px**2 * np.eye(len(lin.D)) + lin.D @ S @ lin.D.T)
    whole = lin.J.T @ W @ lin.J
    V = covariance(level, NOISE)[0]
    reduced = level.gain[0].T @ np.linalg.solve(V, level.gain[0])
    np.testing.assert_allclose(reduced, whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max())


def test_without_noise_the_truth_is_found():
    truth, views = views_of(5, 8, Noise(0.0, 0.0, 0.0))
    fit = refine(views, start(views))
    np.testing.assert_allclose(fit.state.T_mount_camera, truth.T_mount_camera, atol=1e-6)


@pytest.mark.parametrize("eye_in_hand", [True, False])
def test_noise_is_estimated_and_errors_are_within_claims(eye_in_hand):
    outside = 0
    for seed in range(4):
        truth, views = views_of(10 + seed, 15, eye_in_hand=eye_in_hand)
        fit = refine(views, start(views))
        assert fit.noise.pixel_px == pytest.approx(0.1, rel=0.15)
        assert 0.4 < fit.noise.robot_m / NOISE.robot_m < 2
        assert 0.3 < fit.noise.robot_rad / NOISE.robot_rad < 2.5
        X, T = fit.state.T_mount_camera, truth.T_mount_camera
        error = np.concatenate([to_vector(X @ inverse(T))[:3], X[:3, 3] - T[:3, 3]])
        outside += int(np.sum(np.abs(error) > 3.5 * np.sqrt(np.diag(fit.hand_eye_cov))))
    assert outside == 0


def test_freed_size_finds_a_wrongly_measured_board():
    _, views = views_of(6, 15, scale=1.03)
    fit = refine(views, start(views), Free(scale=True))
    assert abs(fit.state.scale - 1.03) < 4 * fit.scale_sd < 0.01


def test_closed_forms_agree_without_noise():
    truth, views = views_of(7, 8, Noise(0.0, 0.0, 0.0))
    C = target_poses(views)
    for method in METHODS:
        X = closed_form(views.fixed_mount(), C, method)
        np.testing.assert_allclose(X, truth.T_mount_camera, atol=1e-5)


def test_trajectory_interpolates_and_gives_the_twist():
    twist = np.array([0.3, -0.2, 0.5, 0.1, 0.05, -0.02])
    t = np.linspace(0, 1, 126)
    # a constant rotation with a position that is linear in time
    T = from_vector(t[:, None] * twist)
    path = Trajectory(t, T)
    at = np.array([0.25, 0.5, 0.777])
    np.testing.assert_allclose(path.at(at), from_vector(at[:, None] * twist), atol=1e-9)
    np.testing.assert_allclose(path.twist(at)[:, :3], np.tile(twist[:3], (3, 1)), atol=1e-6)


def test_time_offset_of_moving_images_is_recovered():
    truth, still = views_of(8, 9, Noise(0.0, 0.0, 0.0))
    stamps = np.arange(0, 40.0, 0.02)
    path = Trajectory(np.linspace(0, 40.0, 9), still.T_base_hand)
    rng = np.random.default_rng(9)
    T = path.at(stamps) @ from_vector(
        rng.normal(size=(len(stamps), 6)) * np.sqrt(NOISE.robot_variance)
    )
    t = np.sort(rng.uniform(1, 39, 25))
    pixels, poses = [], path.at(t)
    for A in poses:
        C = inverse(A @ truth.T_mount_camera) @ truth.T_fixed_target
        uv = project(truth.camera, POINTS @ C[:3, :3].T + C[:3, 3])[0]
        pixels.append(uv + rng.normal(0, 0.1, uv.shape))
    names = tuple(map(str, range(25)))
    views = Views(
        names, poses, (POINTS,) * 25, tuple(pixels), truth.camera, True, True, Trajectory(stamps, T), t - 0.03
    )  # fmt: skip
    fit = refine(views, truth, Free(dt=True))
    assert abs(fit.state.dt_s - 0.03) < 0.003
    assert 0 < fit.dt_sd_s < 0.003


def test_advised_pose_beats_random_ones():
    better = 0
    for seed in range(6):
        truth, views = views_of(30 + seed, 6)
        fit = refine(views, start(views))
        rng = np.random.default_rng(seed)
        advice = advise(fit, POINTS, 0.3, rng, candidates=60)
        assert advice.gain < 1
        assert np.all((advice.score > 0) & (advice.score <= 1))
        more = simulated_views(rng, truth, POINTS, 1, NOISE).T_base_hand
        H, M = (
            information(fit.level, fit.noise).sum(axis=0),
            working_matrix(truth.T_mount_camera, 0.3),
        )

        def error(T, H=H, M=M, fit=fit):
            return np.trace(
                M @ invert(H + pose_information(fit.state, fit.noise, T, POINTS, True)[0])[:6, :6]
            )

        better += error(advice.next_T_base_hand[None]) < error(more)
    assert better >= 5


def test_viewpoints_look_at_the_target():
    rng = np.random.default_rng(0)
    middle = middle_of(POINTS)
    for v in random_viewpoints(rng, 20, (0.3, 0.4), aim_m=0.0):
        C = inverse(v.pose(middle))
        p = C[:3, :3] @ middle + C[:3, 3]
        np.testing.assert_allclose(p[:2], 0, atol=1e-9)
        assert p[2] == pytest.approx(v.distance_m)
        # the target's z points into the paper, so the camera looks along it
        tilt = float(np.degrees(np.arccos(C[2, 2])))
        assert tilt == pytest.approx(v.tilt_deg)
    assert (
        seen_fraction(LENS, POINTS, inverse(random_viewpoints(rng, 1, (0.4, 0.4))[0].pose(middle)))
        > 0
    )


def test_small_angles_are_measured_exactly():
    T = from_vector([1e-9, 0, 0, 0, 0, 0])
    assert float(angle_deg(T)) == pytest.approx(np.degrees(1e-9))
