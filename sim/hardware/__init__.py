"""Emulated devices: UR controller, Robotiq gripper, RealSense camera, and a cell made of them."""
