"""Where clips go: the evidence store port and its adapters."""
