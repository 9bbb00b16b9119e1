"""The write blocker: the one privileged program of a dock. It locks, mounts and makes volumes of cameras, no more.

It is started by systemd for each connection, as `python -I -m dockd.blocker`, and has to stay small enough to be read
in one sitting: the standard library only, nothing of dockd but this package.
"""
