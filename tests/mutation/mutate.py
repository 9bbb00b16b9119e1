"""Break one line of dockd at a time, in a copy, and see that some test fails. What survives, nobody tests.

    python tests/mutation/guards.py                    # each guard of P01 in turn; exit status 1 where one survives
    python tests/mutation/guards.py --only NAME ...    # these
    python tests/mutation/guards.py --quick            # those that unit tests notice, in seconds
    python tests/mutation/guards.py --list

First the same tests run over a copy that nothing was broken in: there they have to pass.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = "tests/unit"
COPIED = ("dockd", "tests", "config", "systemd", "docs", "pyproject.toml", "README.md")
LIMIT_S = 1800
NOTHING_FAILED = "no test failed"
NO_TESTS_RAN = (2, 3, 4, 5)  # pytest's own words for: interrupted, internal error, usage, nothing collected


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One guard, taken out. `text` stands exactly once in `file`; `tests` are the fewest that notice.

    `of`: which of P01's guards it is a part of, if any.
    """

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]
    of: str = ""

    @property
    def quick(self) -> bool:
        """Whether unit tests notice."""
        return all(test.startswith(UNIT) for test in self.tests)

    def broken(self, text: str) -> str:
        """The file's text without the guard. Raises RuntimeError where the guard does not stand there once."""
        if text.count(self.text) != 1:
            raise RuntimeError(f"its line stands {text.count(self.text)} times in {self.file}: the list is out of date")
        return text.replace(self.text, self.instead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one mutation; `words`: the test that failed first, or why there is none."""

    mutation: Mutation
    noticed: bool
    words: str
    took_s: float


def main(mutations: tuple[Mutation, ...], arguments: list[str]) -> int:
    """Try those asked for, or all. Says for each which test failed first."""
    parser = argparse.ArgumentParser(description="Break one line of dockd at a time; some test has to fail.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the mutations of these names, or of these guards")
    parser.add_argument("--quick", action="store_true", help="only those that unit tests notice")
    parser.add_argument("--list", action="store_true", help="show their names, and try none")
    asked = parser.parse_args(arguments)
    names = {name for one in mutations for name in (one.name, one.of)} - {""}
    if unknown := set(asked.only or ()) - names:
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}")
    wanted = [
        one
        for one in mutations
        if (not asked.only or {one.name, one.of} & set(asked.only)) and (one.quick or not asked.quick)
    ]
    if asked.list:
        print("\n".join(f"{one.of:24} {one.name}" for one in wanted))
        return 0
    if not wanted:
        parser.error("none of those is noticed by unit tests")
    if asked.quick:
        from forks import tried_in_forks as tries  # noqa: PLC0415  it imports much, for its children
    else:
        tries = tried
    results = [_shown(result) for result in tries(wanted)]
    survived = sum(not one.noticed for one in results)
    _table(results)
    print(f"{len(results)} taken out, {len(results) - survived} noticed")
    return 1 if survived else 0


def tried(wanted: Sequence[Mutation]) -> Iterator[Result]:
    """What became of each, as it is known. Raises RuntimeError where the tests fail although nothing was broken."""
    with (
        tempfile.TemporaryDirectory(prefix="dockd-mutation.") as scratch,
        ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
    ):
        sound = _try(control(wanted), Path(scratch))
        if sound.noticed or sound.words != NOTHING_FAILED:
            raise RuntimeError(f"the tests fail although nothing was broken: {sound.words}")
        yield from pool.map(lambda one: _try(one, Path(scratch)), wanted)


def _shown(result: Result) -> Result:
    mark = "noticed " if result.noticed else "SURVIVED"
    print(f"{mark}  {result.mutation.name:40} {result.took_s:4.0f} s  {result.words}", flush=True)
    return result


def _table(results: list[Result]) -> None:
    """For each guard that promise P01 names: what was taken out, and which test noticed."""
    guards = dict.fromkeys(one.mutation.of for one in results if one.mutation.of)
    for guard in guards:
        print(f"\n{guard}")
        for one in results:
            if one.mutation.of == guard:
                print(f"    without {one.mutation.name}: {one.words if one.noticed else 'SURVIVED'}")
    print()


def control(wanted: Sequence[Mutation]) -> Mutation:
    """Nothing broken, all tests."""
    tests = tuple(dict.fromkeys(test for one in wanted for test in one.tests))
    text = wanted[0].text
    return Mutation(name="control", file=wanted[0].file, text=text, instead=text, tests=tests)


def _try(mutation: Mutation, scratch: Path) -> Result:
    began_s = time.monotonic()
    noticed, words = _run(mutation, scratch)
    return Result(mutation=mutation, noticed=noticed, words=words, took_s=time.monotonic() - began_s)


def _run(mutation: Mutation, scratch: Path) -> tuple[bool, str]:
    copy = scratch / mutation.name.replace(" ", "-")
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
        else:
            shutil.copy2(source, copy / name)
    file = copy / mutation.file
    try:
        file.write_text(mutation.broken(file.read_text()))
    except RuntimeError as error:
        return False, str(error)
    command = [_python_for(copy), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "DOCKD_MACHINE_SHRINK": "no"}
    environment.pop("DOCKD_CI", None)
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True, "the tests did not end"
    shutil.rmtree(copy, ignore_errors=True)
    return judged(done.returncode, done.stdout)


def judged(code: int, said: str) -> tuple[bool, str]:
    """Whether a run of pytest that ended with `code` noticed, and the test that failed first."""
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if code in NO_TESTS_RAN or (code and not failed) or any(line.startswith("ERROR") for line in failed):
        return False, f"the tests could not be run: {(failed or said.splitlines()[-1:])[:1]}"
    first = failed[0].partition(" - ")[0].removeprefix("FAILED ") if failed else NOTHING_FAILED
    return code == 1, first


def _python_for(copy: Path) -> str:
    """An interpreter that finds the copy's dockd before any other, in its isolated children (`-I`) as well."""
    environment = copy / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    places = [str(copy), *(place for place in sys.path if place.endswith("site-packages"))]
    (inside,) = environment.glob("lib/python*/site-packages")
    # A .pth file that is read through another one's path is not followed: an editable dockd stays out.
    (inside / "copy.pth").write_text("\n".join(dict.fromkeys(places)) + "\n")
    return str(environment / "bin" / "python")
