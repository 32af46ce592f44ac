"""Image-pose pairs from devices or a simulated rig, and verification from new poses."""
