"""What `harness doctor` finds on a machine that a fake executor reports."""

import pytest

from harness.hardware import device_lock
from harness.hardware.info import Device, DeviceReport
from harness.measure.doctor import examine
from harness.records.measurement import MatmulSpeed
from harness.records.stored import to_stored
from harness.workers.look import FIND, REPORT

CARD = Device("cuda:0", "Tesla T4", 15 << 30, uuid="t4", others=("cuda:1 Tesla T4",))
REPORTED = DeviceReport(CARD, {"fp32": MatmulSpeed(4e12, 4e12, native=True)})


class Machine:
    """An executor of one card; `jobs` are those that were asked for."""

    def __init__(self):
        self.jobs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.jobs.append("closed")

    def ask(self, job, payload):
        self.jobs.append(job)
        return to_stored({FIND: CARD, REPORT: REPORTED}[job])


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))


def test_a_second_card_is_named_as_idle_and_the_card_is_let_go():
    machine = Machine()
    findings = examine("auto", hub="none:", executor=machine)
    assert "idle beside it: cuda:1 Tesla T4; measure one with --device cuda:N" in findings.advice
    assert findings.rates == REPORTED.rates
    assert machine.jobs[:3] == [FIND, REPORT, "closed"]


def test_a_device_that_is_being_measured_on_is_named_and_not_timed():
    machine = Machine()
    with device_lock.hold(CARD):
        findings = examine("auto", hub="none:", executor=machine)
    assert findings.device == CARD and not findings.rates and REPORT not in machine.jobs
    (line,) = [line for line in findings.advice if "not timed" in line]
    assert "another bench or ttft is measuring on cuda:0" in line
    assert not findings.problems


def test_no_folder_for_locks_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name in ("TTFT_BENCH_CACHE", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "below"))
    monkeypatch.setattr(device_lock, "gettempdir", lambda: str(tmp_path / "file"))
    findings = examine("auto", hub="none:", executor=Machine())
    assert ["TTFT_BENCH_CACHE" in line for line in findings.problems] == [True]
