"""True grasps: known objects have the grasps that geometry says, and only those."""

import manifold3d
import numpy as np
import pytest
from solids import box, solid

from rt.hand import load_hand
from rt.pose import wrap_theta
from sim.scene.grasps import LEVER_M, Grasps, centres_of_mass, numbered_scene, true_grasps
from sim.scene.objects import catalogue_set
from sim.scene.render import Renderer
from sim.scene.scene import assemble

HAND = load_hand()


def grasps_of(*objects, **options) -> Grasps:
    scene = assemble([(thing, np.eye(4)) for thing in objects])
    return true_grasps(scene, np.random.default_rng(0), HAND, **options)


def test_a_bar_is_grasped_across_and_never_along():
    """5 cm across, 16 cm along: every closing axis is across, every hand centred, all along it."""
    grasps = grasps_of(box((0.05, 0.16, 0.04)))
    assert len(grasps) > 150
    x, y, _, yaw, width = grasps.poses.T
    # Tilted by t, a pad still touches at its middle for 11 mm * tan t < 1 mm, the compliance; at the
    # bar's ends, where less of the pad is over it, for 5.5 mm * tan t < 1 mm.
    tilt = np.abs(np.degrees(wrap_theta(yaw)))
    assert tilt.max() < 10.4 and np.percentile(tilt, 90) < 5.2
    assert np.abs(x).max() < 0.002
    assert y.min() < -0.07 and y.max() > 0.07
    assert (np.abs(width - 0.05) < 0.003).all()


def test_too_wide_a_box_has_none():
    assert len(grasps_of(box((0.09, 0.09, 0.05)))) == 0


def test_a_slab_too_high_for_the_palm_is_held_near_its_top():
    grasps = grasps_of(box((0.04, 0.04, 0.12)))
    assert len(grasps) > 20
    assert grasps.poses[:, 2].min() >= 0.12 - HAND.finger_length_m


def test_a_mug_is_held_by_its_rim_and_across():
    mug = manifold3d.Manifold.cylinder(0.08, 0.038, 0.038, 64) - manifold3d.Manifold.cylinder(
        0.08, 0.034, 0.034, 64
    ).translate((0, 0, 0.005))
    grasps = grasps_of(solid(mug))
    width = grasps.poses[:, 4]
    rim, across = width < 0.01, width > 0.07
    assert rim.sum() > 20 and across.sum() > 20 and (rim | across).all()
    radius = np.hypot(grasps.poses[:, 0], grasps.poses[:, 1])
    assert (np.abs(radius[rim] - 0.036) < 0.004).all()


def test_a_ball_is_held_through_its_middle():
    grasps = grasps_of(solid(manifold3d.Manifold.sphere(0.035, 96).translate((0, 0, 0.035))))
    assert len(grasps) > 200
    x, y, _, yaw, width = grasps.poses.T
    off = np.abs(x * np.sin(yaw) - y * np.cos(yaw))  # lateral miss of the centre
    along = np.abs(x * np.cos(yaw) + y * np.sin(yaw))
    # The ball's middle is between the pads, or so near that their middle half still touches.
    assert off.max() < HAND.finger_width_m / 2 + 0.003 and along.max() < 0.002
    assert (width < 0.0705).all()
    # All directions are equally good.
    assert np.histogram(wrap_theta(yaw), 6, (-np.pi / 2, np.pi / 2))[0].min() > len(grasps) / 12


def test_a_cone_too_steep_for_friction_has_none():
    """Sides 45 degrees from upright slip at friction 0.5 (26.6 degrees) and hold at 1.2 (50)."""
    cone = solid(manifold3d.Manifold.cylinder(0.04, 0.04, 0.0001, 64))
    assert len(grasps_of(cone)) == 0
    assert len(grasps_of(cone, friction=1.2)) > 20


def test_a_wall_beside_the_object_keeps_the_finger_out():
    """A second body 12 mm beside: no room for a 14 mm finger on that side."""
    thing, wall = box((0.04, 0.04, 0.05)), box((0.02, 0.20, 0.05))
    aside = np.eye(4)
    aside[0, 3] = 0.02 + 0.012 + 0.01
    free = true_grasps(assemble([(thing, np.eye(4))]), np.random.default_rng(0), HAND)
    scene = assemble([(thing, np.eye(4)), (wall, aside)])
    blocked = true_grasps(scene, np.random.default_rng(0), HAND)
    yaw = np.abs(wrap_theta(free.poses[:, 3]))
    assert (yaw < 0.3).any() and (yaw > 1.2).any()
    on_thing = blocked.poses[blocked.object == 0]
    assert len(on_thing) and np.abs(wrap_theta(on_thing[:, 3])).min() > 1.2


@pytest.mark.parametrize("number", range(5))
def test_no_grasp_touches_the_scene_on_the_way_down(number):
    """An oracle of rays: the fingers' and palm's faces, on a finer grid, see nothing below them."""
    scene, grasps, _ = numbered_scene(catalogue_set("train"), 3, "train", number)
    renderer = Renderer(scene)
    assert len(grasps)
    for x, y, z, yaw, _ in grasps.poses[:60].astype(float):
        for x0, dx, dy, bottom in (
            (HAND.opening_m / 2 + HAND.finger_thickness_m / 2,) * 1
            + (HAND.finger_thickness_m, HAND.finger_width_m, z),
            (-HAND.opening_m / 2 - HAND.finger_thickness_m / 2,) * 1
            + (HAND.finger_thickness_m, HAND.finger_width_m, z),
            (0.0, HAND.palm_length_m, HAND.palm_width_m, z + HAND.finger_length_m),
        ):
            u, v = np.meshgrid(
                np.linspace(-dx / 2, dx / 2, 25) + x0, np.linspace(-dy / 2, dy / 2, 25)
            )
            u, v = u.ravel(), v.ravel()
            c, s = np.cos(yaw), np.sin(yaw)
            points = np.column_stack([x + c * u + s * v, y + s * u - c * v, np.full(u.shape, 1.0)])
            t, _ = renderer.cast(
                points.astype(np.float32), np.tile(np.float32([0, 0, -1]), (len(points), 1))
            )
            assert 1 - t.min() <= bottom + 1e-4


def test_every_number_gives_the_same_scene_and_some_grasp():
    objects = catalogue_set("test")
    for number in range(6):
        a, b = (numbered_scene(objects, 1, "test", number) for _ in range(2))
        assert len(a[1]) and a[1].poses.tobytes() == b[1].poses.tobytes()
        assert a[0].vertices.tobytes() == b[0].vertices.tobytes()
    other = numbered_scene(objects, 2, "test", 0)
    assert (
        other[0].vertices.tobytes() != numbered_scene(objects, 1, "test", 0)[0].vertices.tobytes()
    )


def test_most_objects_of_every_category_can_be_grasped():
    objects = catalogue_set("all")
    found: dict[str, list[bool]] = {}
    for name in objects.names[::6]:
        thing = objects.get(name)
        some = False
        for T in thing.rest:
            lifted = assemble([(thing, T)])
            if lifted.vertices[:, 2].max() < 0.13:
                some |= len(true_grasps(lifted, np.random.default_rng(0), HAND, samples=300)) > 0
        found.setdefault(thing.category, []).append(some)
    assert len(found) == 10
    for category, hits in found.items():
        assert np.mean(hits) >= 0.7, category


def test_no_grasp_far_from_the_weight():
    """A rod is held near its middle, where its weight does not turn it in the pads."""
    scene = assemble([(thing := box((0.3, 0.02, 0.02)), thing.rest[0])])
    found = true_grasps(scene, np.random.default_rng(0), samples=1000)
    np.testing.assert_allclose(centres_of_mass(scene), [[0, 0, 0.01]], atol=1e-6)
    along = np.abs((found.poses[:, :2] - scene.placed[0].T_world_object[:2, 3]) @ _long_axis(scene))
    assert len(found) and 0.7 * LEVER_M < along.max() <= LEVER_M + 1e-3


def _long_axis(scene):
    points = scene.vertices[:, :2] - scene.vertices[:, :2].mean(0)
    return np.linalg.svd(points, full_matrices=False)[2][0]
