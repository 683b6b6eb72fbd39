"""A little of every case; `python -m tests.hard_knocks --full` does more."""

import pytest

from tests.hard_knocks.harness import CASES


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_is_disturbed_is_refused_or_goes_on(case):
    assert len(list(case.outcomes(case.few, seed=0))) == case.few
