"""Lifts in MuJoCo: model of scene and hand, convex parts, the final approach, the lift."""
