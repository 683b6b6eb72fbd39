"""A little of every case; `python -m tests.hard_knocks --full` does more."""

import pytest

from tests.hard_knocks.cases import CASES


@pytest.mark.parametrize("case", [c for c in CASES if c.few], ids=lambda case: case.name)
def test_what_is_disturbed_is_refused_or_goes_on(case):
    assert len(list(case.outcomes(case.few, seed=0))) == case.few
