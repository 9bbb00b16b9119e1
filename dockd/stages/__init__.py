"""The steps of the way of the data, one module a step: detect, admit, acquire, upload, confirm, reread, sanitise."""
