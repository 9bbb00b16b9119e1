"""The evidence receiver: what stands at the other end of a push."""
