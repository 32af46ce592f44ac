"""Recordings and other programs' files: images, poses, intrinsics."""
