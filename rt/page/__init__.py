"""The live page: a server process that draws scene, arm, view, charts and buttons in a browser."""
