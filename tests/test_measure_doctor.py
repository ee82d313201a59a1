"""What `harness doctor` finds on a machine that a fake executor reports."""

from types import SimpleNamespace

from harness.hardware.info import Device, DeviceReport
from harness.measure.doctor import examine
from harness.records.measurement import MatmulSpeed
from harness.records.stored import to_stored


def test_a_second_card_is_named_as_idle():
    card = Device("cuda:0", "Tesla T4", 15 << 30, others=("cuda:1 Tesla T4",))
    report = to_stored(DeviceReport(card, {"fp32": MatmulSpeed(4e12, 4e12, native=True)}))
    executor = SimpleNamespace(run=lambda *_: SimpleNamespace(status="ok", result=report))
    findings = examine("auto", hub="none:", executor=executor)
    assert "idle beside it: cuda:1 Tesla T4; measure one with --device cuda:N" in findings.advice
