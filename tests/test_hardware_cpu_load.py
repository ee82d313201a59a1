"""The load by others: reckoned on a machine of the test's own, and on this one."""

import subprocess
import sys
import time

import psutil
import pytest
from helpers.busy import Machine

from harness.hardware import cpu_load
from harness.hardware.cpu_load import CpuLoad, CpuMeter, own_seconds

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


def test_what_this_program_uses_is_not_counted():
    """Two seconds: others use 1 core, then 2; this program half a one."""
    machine = Machine(1.0, 2.0, stolen=0.25)
    meter = machine.meter()
    machine.sleep(2)
    assert meter.read() == CpuLoad(others=1.5, stolen=0.25)
    assert meter.over(1).others == 2.0
    machine.sleep(4)
    assert meter.seconds == 5


def test_a_meter_that_was_just_started_knows_of_no_load():
    assert Machine(3.0).meter().read() == CpuLoad(0.0, 0.0)


@pytest.mark.parametrize(
    ("others", "threads", "taken", "crowded"),
    [
        (0.1, 4, 0.1, False),  # what a quiet machine does
        (0.4, 4, 0.4, True),
        (2.0, 2, 0.0, False),  # two cores of the four are left to others
        (2.4, 2, 0.4, True),
        (3.1, 1, 0.1, False),  # a card's one launching process
        (3.9, 1, 0.9, True),
        (1.0, 8, 1.0, True),  # more threads than cores
    ],
)
def test_others_use_the_cores_that_are_left_to_them_first(monkeypatch, others, threads, taken, crowded):
    monkeypatch.setattr(cpu_load, "cores", lambda: 4)
    load = CpuLoad(others, 0.0)
    assert load.taken_from(threads) == pytest.approx(taken)
    assert load.crowds(threads) == crowded


def test_time_of_processes_that_have_ended_is_this_programs_own():
    before = own_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert own_seconds() - before > 0.45


def test_processes_that_this_program_did_not_start_are_others(tmp_path):
    """One that burns half a second, and belongs to nobody, for who started it has ended."""
    done = tmp_path / "done"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN + f'open({str(done)!r}, chr(119))'!r}])"
    )
    start, meter = time.monotonic(), CpuMeter()
    subprocess.run([sys.executable, "-c", code], check=True)
    while not done.exists():
        time.sleep(0.01)
    seconds = time.monotonic() - start
    assert meter.read().others * seconds > 0.3


def test_a_process_that_is_not_there_has_used_nothing():
    assert own_seconds(root=max(psutil.pids()) + 100_000) == 0.0


def test_this_machine_has_cores_and_time():
    busy, stolen = cpu_load.busy_seconds()
    assert 1 <= cpu_load.cores() <= psutil.cpu_count()
    assert 0 <= stolen <= busy
