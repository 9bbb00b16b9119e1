"""Cameras over MTP and PTP: ISO 15740 (PTP) in dockd's own words, with what MTP 1.1 adds to it.

`usbfs` is the only module that touches a device; all others know a `Pipe`, which tests replace by a made-up camera.
"""
