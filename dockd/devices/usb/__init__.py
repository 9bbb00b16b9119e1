"""Cameras on USB ports: who stands where, which of them is a camera, and how its volumes are reached."""
