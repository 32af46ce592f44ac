"""The live page: a server process that draws scene, arm, view, charts and buttons in a browser."""


class PageError(RuntimeError):
    """A page that cannot be shown: viser is missing, the port is taken, the ring is gone."""
