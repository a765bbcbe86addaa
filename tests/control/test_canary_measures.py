"""What /metrics tells of canaries."""

import re

from tests.control.test_canaries import NEW, Lived, lived  # noqa: F401 - a fixture


def values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(penstock_canar\S+) (\S+)$", text, re.MULTILINE)}


async def test_share_evidence_expiry_and_end_are_told(lived: Lived) -> None:  # noqa: F811
    await lived.begin()
    await lived.serve(400)
    lived.clock[0] += 1
    told = values((await lived.house.admin.get("/metrics")).text)
    of = f'model="support-bot",version="support-bot:{NEW}"'
    assert told[f"penstock_canary_share{{{of}}}"] in (0.2, 0.5)
    assert told[f"penstock_canary_expires_timestamp_seconds{{{of}}}"] == lived.clock[0] + 29
    assert 0 <= told[f'penstock_canary_evidence_ratio{{guardrail="error_rate",{of}}}'] < 1
    assert told['penstock_canaries_ended_total{model="support-bot",result="rolled_back"}'] == 0
    await lived.serve(300, failing=0.5)
    told = values((await lived.house.admin.get("/metrics")).text)
    assert told['penstock_canaries_ended_total{model="support-bot",result="rolled_back"}'] == 1
    assert not [name for name in told if name.startswith("penstock_canary_")]
