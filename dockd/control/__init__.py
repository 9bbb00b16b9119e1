"""The local control socket: what operators and the CLI talk to."""
