"""Scenes: objects, how they rest, depth by rays, true grasps, and the camera that sees them."""
