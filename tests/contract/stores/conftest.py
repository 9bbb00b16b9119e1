"""Cases for the conformance suite: every kind of store by every way to it, but what exclusions.py takes out."""

from __future__ import annotations

import pytest
from contract.stores.cases import Way
from contract.stores.exclusions import EXCLUDED
from contract.stores.kinds import KINDS

_ONE_WAY = {"nginx_case": Way.PASSING}  # its tests choose the door themselves


def pytest_generate_tests(metafunc):
    for name in ("case", "objects_case", "nginx_case"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(_params(name, metafunc.definition.name)), indirect=True)


def _params(fixture, test):
    for kind in KINDS:
        if kind.name in EXCLUDED.get(test, {}) or (fixture == "objects_case" and not kind.keeps_objects):
            continue
        for way in kind.ways:
            if way is _ONE_WAY.get(fixture, way):
                marks = pytest.mark.servers if kind.servers else ()
                yield pytest.param((kind, way), id=f"{kind.name}-{way.value}", marks=marks)


@pytest.fixture
async def case(request):
    kind, way = request.param
    async with kind.open(request, way) as opened:
        yield opened
        for adapter in opened.connected:
            await adapter.aclose()


objects_case = nginx_case = case
