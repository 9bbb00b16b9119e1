"""Push parsers for media containers: `feed(offset, block)`, then `finish(size) -> Verdict`. Pure."""
