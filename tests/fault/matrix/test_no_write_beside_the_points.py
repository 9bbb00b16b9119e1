"""Nothing in dockd/ makes anything durable, or takes it away, beside the fault points.

What is called, or handed on to be called, has to be handed to `Faults.act`, or to be named below with its reason.
"""

from __future__ import annotations

import ast
from pathlib import Path

import dockd

ROOT = Path(dockd.__file__).parent

SYNCS = {"fsync", "fdatasync", "fsync_directory", "sync_filesystem", "syncfs", "sync_file_range"}
NAMES = {
    "rename",
    "renames",
    "rename_to_new",
    "renameat2",
    "unlink",
    "rmdir",
    "removedirs",
    "hardlink_to",
    "symlink_to",
}
SIZES = {"truncate", "ftruncate", "posix_fallocate", "fallocate"}
WRITES = {"pwrite", "pwritev", "writev", "write_bytes", "write_text", "executescript", "write_file", "temporary_beside"}
OF_OS = {"write", "remove", "replace", "link", "symlink", "sync"}
OF_SHUTIL = {"rmtree", "move", "copy", "copy2", "copyfile", "copyfileobj", "copytree"}
ANYWHERE = SYNCS | NAMES | SIZES | WRITES

PERSON = "a person gives this command, sees whether it failed, and gives it again; nothing of a clip rests on it"
DURABLE = "the inside of what takes a point: its callers name it"
ALLOWED = {
    ("app/demo.py", "_place"): PERSON,
    ("app/demo.py", "_spawn"): PERSON,
    ("app/demo.py", "copy_clip"): PERSON,
    ("app/demo.py", "dock"): PERSON,
    ("app/init.py", "_directory"): PERSON,
    ("app/init.py", "_new"): PERSON,
    ("app/open.py", "open_sealed"): PERSON,
    ("app/install.py", "_install"): PERSON,
    ("app/camera.py", "make_camera"): PERSON,
    ("devices/marker.py", "_write"): PERSON,
    ("control/server.py", "bind"): "a socket: it is made anew at each start",
    ("keep/durable.py", "fsync_directory"): DURABLE,
    ("keep/durable.py", "_put_in_place"): DURABLE,
    (
        "keep/durable.py",
        "temporary_beside",
    ): "removes what failed; what a kill leaves there, its directory's owner sweeps",
    ("reader/kernel.py", "the module"): DURABLE,
    ("reader/kernel.py", "rename_to_new"): DURABLE,
    ("reader/kernel.py", "sync_filesystem"): DURABLE,
    ("reader/cache.py", "_drop"): "before a read: it makes the cache forget; dockd wrote nothing there",
    ("reader/carry.py", "pack"): "a file in memory, for the next reader",
    ("reader/confine.py", "confine_reader"): "a file of /proc",
    ("receiver/catalogue.py", "_transact"): "the end of a question: what changes anything names its point",
}
MECHANISM = "faults.py"


def test_every_durable_write_passes_a_fault_point():
    found = {(path, place, call) for path, place, call in _beside()}
    unknown = sorted(one for one in found if one[:2] not in ALLOWED)
    assert not unknown, "\n".join(
        f"dockd/{path}: {place} has {call} beside the fault points" for path, place, call in unknown
    )
    assert set(ALLOWED) == {one[:2] for one in found}, "these are not needed any more"


def _beside():
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        # The blocker has a privilege of its own, and runs nothing of dockd: tests/unit/blocker.
        if name != MECHANISM and not name.startswith("blocker/"):
            yield from _Walk(name).of(ast.parse(path.read_text()))


class _Walk(ast.NodeVisitor):
    def __init__(self, path):
        self._path = path
        self._place = ["the module"]
        self._found = []

    def of(self, tree):
        self.visit(tree)
        return self._found

    def visit_FunctionDef(self, node):
        self._place.append(node.name)
        self.generic_visit(node)
        self._place.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Call(self, node):
        at_a_point = _is_act(node) or _names_points(node)
        if _commits(node) or _opens_to_write(node) or (_replaces(node.func) and _is_path_replace(node)):
            self._note(node)
        for part in ast.iter_child_nodes(node):
            if not (at_a_point and _is_write(part)):
                self.visit(part)
            elif isinstance(part, ast.Attribute):
                self.visit(part.value)

    def visit_Attribute(self, node):
        if _is_write(node):
            self._note(node)
        self.generic_visit(node)

    def visit_Name(self, node):
        if _is_write(node):
            self._note(node)

    def _note(self, node):
        self._found.append((self._path, self._place[-1], ast.unparse(node)))


def _is_write(node) -> bool:
    if isinstance(node, ast.Name):
        return node.id in ANYWHERE
    if not isinstance(node, ast.Attribute):
        return False
    of = ast.unparse(node.value)
    return node.attr in ANYWHERE or (of == "os" and node.attr in OF_OS) or (of == "shutil" and node.attr in OF_SHUTIL)


def _is_act(node: ast.Call) -> bool:
    """faults.act(Point.X, what, ...), or the same in keep/durable.py, which is told the points."""
    called = ast.unparse(node.func)
    handed_on = called == "asyncio.to_thread" and ast.unparse(node.args[0]).endswith("faults.act")
    return called == "_at" or called.endswith("faults.act") or handed_on


def _names_points(node: ast.Call) -> bool:
    """write_file(..., points=...), or asyncio.to_thread(write_file, ..., points=...)."""
    return any(keyword.arg == "points" for keyword in node.keywords)


def _commits(node: ast.Call) -> bool:
    first = node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) else ""
    return isinstance(node.func, ast.Attribute) and (
        (node.func.attr == "execute" and isinstance(text, str) and text.lstrip().upper().startswith("COMMIT"))
        or (node.func.attr == "commit" and "connection" in ast.unparse(node.func.value))
    )


def _opens_to_write(node: ast.Call) -> bool:
    if (node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")) != "open":
        return False
    words = [one.value for one in (*node.args, *(key.value for key in node.keywords)) if isinstance(one, ast.Constant)]
    return any(isinstance(word, str) and len(word) <= 3 and set(word) & set("wax+") for word in words)


def _replaces(func) -> bool:
    return isinstance(func, ast.Attribute) and func.attr == "replace"


def _is_path_replace(node: ast.Call) -> bool:
    """As opposed to text's, a date's and a dataclass's."""
    return len(node.args) == 1 and not node.keywords


def test_the_walk_sees_what_is_beside_a_point():
    seen = {
        "os.fsync(fd)": 1,
        "faults.act(Point.MOVE, os.fsync, fd)": 0,
        "self._faults.act(Point.MOVE, (a / b).rename, c)": 0,
        "asyncio.to_thread(path.unlink)": 1,
        "asyncio.to_thread(faults.act, Point.MOVE, path.unlink)": 0,
        "write_file(path, content)": 1,
        "write_file(path, content, points=POINTS)": 0,
        "connection.execute('COMMIT')": 1,
        "faults.act(Point.MOVE, connection.execute, 'COMMIT')": 0,
        "temporary.replace(path)": 1,
        "text.replace('a', 'b') + dataclasses.replace(one, two=3)": 0,
        "path.open('wb')": 1,
        "path.open('rb')": 0,
        "shutil.rmtree(path)": 1,
        "os.replace(a, b)": 1,
        "faults.act(Point.MOVE, os.unlink(path))": 1,
    }
    assert {code: len(_Walk("x").of(ast.parse(code))) for code in seen} == seen
