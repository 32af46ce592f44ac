"""Depth cameras: one small protocol, its frame, and the pinhole model with its distortion.

A device is a module of this folder (or the simulated twin) that implements `Camera`.
"""

from rt.camera.intrinsics import CameraError, Intrinsics, StaleFrameError, distort
from rt.camera.protocol import Camera, Frame

__all__ = ["Camera", "CameraError", "Frame", "Intrinsics", "StaleFrameError", "distort"]
