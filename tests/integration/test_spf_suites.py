"""The suites of RFC 7208 and RFC 4408 over an engine without a network."""

import asyncio

import pytest

from agent.spf.evaluate import check_host
from tests.spf import suite
from tests.spf.zone import Memory

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", suite.SUITES)
def test_all_cases_of_the_suites_come_out_as_the_rfcs_want_them(name: str) -> None:
    wrong = []
    for case in suite.cases(name):
        found = asyncio.run(check_host(case.query, Memory(case.zone)))
        right = found.result.value in case.results and case.explanation in (None, found.explanation)
        if not right:
            wrong.append(
                f"{case.id}: {found.result.value} {found.explanation!r}, not {case.results} {case.explanation!r} {found.problem}"
            )
    assert not wrong, "\n".join(wrong)
