"""Everything made of triangles: objects, scenes, depth images, true grasps, the simulated twin."""
