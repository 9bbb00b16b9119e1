"""The station: dockings, the uplink and the daemon that owns both."""
