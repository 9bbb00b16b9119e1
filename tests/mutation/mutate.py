"""Break one line of dockd at a time, in a copy, and see that some test fails. What survives, nobody tests.

    python tests/mutation/guards.py             # each guard of P01 in turn; exit status 1 where one survives
    python tests/mutation/guards.py NAME ...    # only these

First the same tests run over a copy that nothing was broken in: there they have to pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("dockd", "tests", "config", "systemd", "docs", "pyproject.toml", "README.md")
LIMIT_S = 600
NOTHING_FAILED = "no test failed"
NO_TESTS_RAN = (2, 3, 4, 5)  # pytest's own words for: interrupted, internal error, usage, nothing collected


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One guard, taken out. `text` stands exactly once in `file`; `tests` are those that should notice."""

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]


def main(mutations: tuple[Mutation, ...], arguments: list[str]) -> int:
    """Try those named, or all. Says for each which test failed first."""
    wanted = [one for one in mutations if not arguments or one.name in arguments]
    unknown = set(arguments) - {one.name for one in mutations}
    if unknown:
        print(f"no mutation is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return os.EX_USAGE
    control = _control(wanted)
    with (
        tempfile.TemporaryDirectory(prefix="dockd-mutation.") as scratch,
        ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
    ):
        failed, words = _try(control, Path(scratch))
        if failed or words != NOTHING_FAILED:
            print(f"the tests fail although nothing was broken: {words}", file=sys.stderr)
            return os.EX_SOFTWARE
        results = list(pool.map(lambda one: _try(one, Path(scratch)), wanted))
    survived = 0
    for mutation, (noticed, words) in zip(wanted, results, strict=True):
        survived += not noticed
        print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutation.name:34} {words}")
    print(f"{len(wanted)} guards taken out, {len(wanted) - survived} noticed")
    return 1 if survived else 0


def _control(wanted: list[Mutation]) -> Mutation:
    """Nothing broken, all tests."""
    tests = tuple(dict.fromkeys(test for one in wanted for test in one.tests))
    text = wanted[0].text
    return Mutation(name="control", file=wanted[0].file, text=text, instead=text, tests=tests)


def _try(mutation: Mutation, scratch: Path) -> tuple[bool, str]:
    copy = scratch / mutation.name.replace(" ", "-")
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
        else:
            shutil.copy2(source, copy / name)
    broken = copy / mutation.file
    text = broken.read_text()
    if text.count(mutation.text) != 1:
        return False, f"its line stands {text.count(mutation.text)} times in {mutation.file}: the list is out of date"
    broken.write_text(text.replace(mutation.text, mutation.instead))
    command = [_python_for(copy), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DOCKD_CI", None)
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True, "the tests did not end"
    shutil.rmtree(copy, ignore_errors=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if (
        done.returncode in NO_TESTS_RAN
        or (done.returncode and not failed)
        or any(line.startswith("ERROR") for line in failed)
    ):
        return False, f"the tests could not be run: {(failed or done.stdout.splitlines()[-1:])[:1]}"
    first = failed[0].partition(" - ")[0].removeprefix("FAILED ") if failed else NOTHING_FAILED
    return done.returncode == 1, first


def _python_for(copy: Path) -> str:
    """An interpreter that finds the copy's dockd before any other, in its isolated children (`-I`) as well."""
    environment = copy / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    places = [str(copy), *(place for place in sys.path if place.endswith("site-packages"))]
    (inside,) = environment.glob("lib/python*/site-packages")
    # A .pth file that is read through another one's path is not followed: an editable dockd stays out.
    (inside / "copy.pth").write_text("\n".join(dict.fromkeys(places)) + "\n")
    return str(environment / "bin" / "python")
