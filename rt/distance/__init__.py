"""d(I, a): the distance from the hand to the nearest good grasp once it has moved by `a`."""
