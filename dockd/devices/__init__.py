"""Where cameras come from: the device port and its sources."""
