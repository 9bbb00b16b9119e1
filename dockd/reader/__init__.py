"""The child process that alone touches a camera: list, acquire, reread, erase."""
