"""Every Molecule scenario, on real hosts: containers that boot systemd, reached over SSH.

They need a container engine and the image of a bare host (scripts/test-host sees to both, as root), and some need programs that
are built from source once (minutes). Where one is missing the scenario is skipped with the reason; with SPAMOPS_TEST_ALL=1
(scripts/test --all, and CI) what is missing is built, and what is still missing is a failure.
"""

from __future__ import annotations

import pytest
from scenarios import EVERYTHING, NAMES, SECONDS, Missing, Scenarios


def test_there_are_scenarios() -> None:
    assert {"default", "hardening"} <= set(NAMES)


@pytest.mark.timeout(SECONDS * len(NAMES))
@pytest.mark.parametrize("scenario", NAMES)
def test_a_real_host_comes_out_as_promised(scenario: str, scenarios: Scenarios, measured: list[str]) -> None:
    try:
        outcome = scenarios.outcome(scenario)
    except Missing as reason:
        (pytest.fail if EVERYTHING else pytest.skip)(str(reason))
    measured.append(f"{scenario}: the whole scenario took {outcome.seconds:.0f} s, beside another")
    measured.extend(f"{scenario}: {figure}" for figure in outcome.figures)
    if outcome.exit_code:
        pytest.fail(f"molecule test -s {scenario}:\n" + "\n".join(outcome.output.splitlines()[-200:]), pytrace=False)
