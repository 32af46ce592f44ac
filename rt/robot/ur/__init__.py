"""Universal Robots arms (CB3 and e-Series) through ur-rtde: `open_robot`, `open_calibration`."""

from rt.robot.ur.driver import open_calibration, open_robot

__all__ = ["open_calibration", "open_robot"]
