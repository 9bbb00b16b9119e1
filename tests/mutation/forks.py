"""The quick way to break a line: in a fork of a program that has imported all but dockd. Nothing is copied.

It sees what the program itself imports, and nothing of the programs that it may start: that is enough for unit tests.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401  as those below: what every fork would import
import hypothesis.stateful  # noqa: F401
import pytest
import pytest_asyncio  # noqa: F401
import pytest_timeout  # noqa: F401
import structlog  # noqa: F401
from mutate import NOTHING_FAILED, ROOT, Mutation, Result, control, judged


def tried_in_forks(wanted: Sequence[Mutation]) -> Iterator[Result]:
    """What became of each, as it is known. Raises RuntimeError where the tests fail although nothing was broken."""
    waiting = [control(list(wanted)), *wanted]
    running: dict[int, tuple[Mutation, Path, float]] = {}
    with tempfile.TemporaryDirectory(prefix="dockd-mutation.") as scratch:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                mutation = waiting.pop(0)
                said = Path(scratch) / mutation.name.replace(" ", "-")
                running[_fork(mutation, said)] = mutation, said, time.monotonic()
            pid, status = os.wait()
            mutation, said, began_s = running.pop(pid)
            noticed, words = judged(os.waitstatus_to_exitcode(status), said.read_text())
            if mutation.name != "control":
                yield Result(mutation=mutation, noticed=noticed, words=words, took_s=time.monotonic() - began_s)
            elif words != NOTHING_FAILED:
                raise RuntimeError(f"the tests fail although nothing was broken: {words}")


def _fork(mutation: Mutation, said: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = os.EX_SOFTWARE
    try:
        with said.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(ROOT)
        sys.path.insert(0, str(ROOT))
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, _Broken(mutation))
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", *mutation.tests])
    except Exception:  # noqa: BLE001  it is said where the tests would have said something
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class _Broken(MetaPathFinder):
    """Finds one module, and loads it with its line broken."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation
        self._name = mutation.file.removesuffix(".py").replace("/", ".")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, spec.origin, self._mutation))


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutation: Mutation) -> None:
        super().__init__(fullname, path)
        self._mutation = mutation

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutation.broken(Path(self.path).read_text()), self.path, "exec", dont_inherit=True)
