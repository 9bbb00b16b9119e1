"""All contact with a camera: one child program per docking, forked from a pre-imported server, and its parent side.

`client` is the parent side; `forkserver` starts readers; `child` is one reader.
"""
