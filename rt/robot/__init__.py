"""Robot arms: one small protocol, its data, and the history of poses. A driver is a room of this folder."""

from rt.robot.history import PoseHistory
from rt.robot.protocol import Robot, RobotError, RobotState, Transform

__all__ = ["PoseHistory", "Robot", "RobotError", "RobotState", "Transform"]
