"""A made-up MTP camera behind a pipe: containers in, containers out, with the faults that real ones have."""

import errno
import struct

HEADER = struct.Struct("<IHHI")
OPERATIONS = (0x1001, 0x1002, 0x1003, 0x1004, 0x1007, 0x1008, 0x100B, 0x101B, 0x9803)
DESCRIPTOR = bytes.fromhex("120100020000004006ff0400000001020301")
MODIFIED = "20260304T050607"


def text(words):
    if not words:
        return b"\0"
    units = (words + "\0").encode("utf-16-le", "surrogatepass")
    return bytes([len(units) // 2]) + units


def array(values, letter="I"):
    return struct.pack(f"<I{len(values)}{letter}", len(values), *values)


class Thing:
    """An object. `content` None: a folder."""

    def __init__(self, name, content=None, parent=0, *, storage=0x10001, modified=MODIFIED, size=None):
        self.name = name
        self.content = content
        self.parent = parent
        self.storage = storage
        self.modified = modified
        self.size = len(content or b"") if size is None else size

    def info(self):
        size = min(self.size, 0xFFFFFFFF)
        format_ = 0x3001 if self.content is None else 0x300B
        fixed = struct.pack(
            "<IHHIHIIIIIIIHII", self.storage, format_, 0, size, 0, 0, 0, 0, 0, 0, 0, self.parent, 1, 0, 0
        )
        return fixed + text(self.name) + text("") + text(self.modified) + text("")


class MtpCameraFake:
    """A pipe, and the camera behind it. Its knobs are plain attributes."""

    packet_bytes = 512

    def __init__(self, serial="CAM1"):
        self.serial_text = serial
        self.things = {}
        self.storages = [0x10001]
        self.operations = OPERATIONS
        self.present = True
        self.session = False
        self.asked = []  # operations with their parameters
        self.refuse = {}  # (operation, first parameter or None) to a code
        self.keeps_deleted = False  # says that it deleted, and did not
        self.hides = set()  # handles that are in no listing
        self.most = 1 << 30  # bytes of one GetPartialObject
        self.split = False  # the header of a data phase comes alone
        self.fail = []  # errnos that the next transfers fail with
        self.mangle = lambda transfers: transfers  # what becomes of an answer's transfers
        self.restarts = 0
        self.closed = False
        self._next = 1
        self._answer = []

    def put(self, path, content=None, **fields):
        """Add a file (or a folder) below folders that exist or are made. Its handle."""
        *above, name = path.split("/")
        parent = 0
        for folder in above:
            known = [h for h, t in self.things.items() if (t.name, t.parent) == (folder, parent) and t.content is None]
            parent = known[0] if known else self.add(Thing(folder, None, parent))
        return self.add(Thing(name, content, parent, **fields))

    def add(self, thing):
        handle, self._next = self._next, self._next + 1
        self.things[handle] = thing
        return handle

    # --- the pipe

    def send(self, content):
        self._check()
        length, kind, code, transaction = HEADER.unpack_from(content)
        assert (length, kind) == (len(content), 1)
        parameters = struct.unpack_from(f"<{(length - 12) // 4}I", content, 12)
        self.asked.append((code, *parameters))
        payload, response = self._do(code, parameters)
        transfers = []
        if payload is not None:
            header = HEADER.pack(12 + len(payload), 2, code, transaction)
            transfers += [header, payload] if self.split else [header + payload]
            if (12 + len(payload)) % self.packet_bytes == 0:
                transfers.append(b"")
        transfers.append(HEADER.pack(12, 3, response, transaction))
        self._answer = self.mangle(transfers)

    def receive(self, size):
        assert size
        assert size % self.packet_bytes == 0
        self._check()
        if not self._answer:
            raise OSError(errno.ETIMEDOUT, "timed out")
        transfer = self._answer.pop(0)
        if len(transfer) > size:
            self._answer.insert(0, transfer[size:])
        elif len(transfer) == size and self._answer and self._answer[0] == b"" and size > self.packet_bytes:
            pass  # the empty packet after it is still to come
        return memoryview(transfer[:size])

    def descriptor(self):
        if not self.present:
            raise OSError(errno.ENODEV, "No such device")
        return DESCRIPTOR

    def serial(self):
        self.descriptor()
        return self.serial_text

    def restart(self):
        self.descriptor()
        self.restarts += 1
        self.session, self._answer = False, []

    def close(self):
        self.closed = True

    def _check(self):
        if not self.present:
            raise OSError(errno.ENODEV, "No such device")
        if self.fail:
            raise OSError(self.fail.pop(0), "made up")

    # --- the camera

    def _do(self, code, parameters):
        first = parameters[0] if parameters else None
        for key in ((code, first), (code, None)):
            if key in self.refuse:
                return None, self.refuse[key]
        if code not in self.operations:
            return None, 0x2005
        if code in (0x1002, 0x1003):
            if self.session == (code == 0x1002):
                return None, 0x201E if self.session else 0x2003
            self.session = code == 0x1002
            return None, 0x2001
        if not self.session and code != 0x1001:
            return None, 0x2003
        answer = {
            0x1001: self._device,
            0x1004: self._storages,
            0x1007: self._children,
            0x1008: self._info,
            0x100B: self._delete,
            0x101B: self._part,
            0x95C1: self._long_part,
            0x9803: self._size,
        }[code](*parameters)
        return (None, answer) if isinstance(answer, int) else (answer, 0x2001)

    def _device(self):
        start = struct.pack("<HIH", 100, 6, 100) + text("microsoft.com: 1.0;") + struct.pack("<H", 0)
        return start + array(self.operations, "H") + array((), "H") * 4 + text("Maker") + text("Model")

    def _storages(self):
        return array(self.storages)

    def _children(self, storage, format_, parent):
        parent = 0 if parent == 0xFFFFFFFF else parent
        if parent and parent not in self.things:
            return 0x201A
        here = [
            handle
            for handle, thing in self.things.items()
            if (thing.storage, thing.parent) == (storage, parent) and handle not in self.hides
        ]
        return array(here)

    def _info(self, handle):
        return self.things[handle].info() if handle in self.things else 0x2009

    def _delete(self, handle, format_):
        if handle == 0xFFFFFFFF:
            self.things.clear()
            return 0x2001
        if handle not in self.things:
            return 0x2009
        if not self.keeps_deleted:
            del self.things[handle]
        return 0x2001

    def _part(self, handle, offset, size):
        if handle not in self.things:
            return 0x2009
        return self.things[handle].content[offset : offset + min(size, self.most)]

    def _long_part(self, handle, low, high, size):
        return self._part(handle, low | high << 32, size)

    def _size(self, handle, prop):
        return struct.pack("<Q", self.things[handle].size)
