"""dockd: the ingest daemon of a body-worn camera docking station."""

__version__ = "0.1.0"
