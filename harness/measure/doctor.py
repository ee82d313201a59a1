"""What `harness doctor` finds: the device, its dtypes, the libraries, the hub, and how to mend what is missing."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness import network
from harness.catalog.precisions import native_dtype
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.environment import LIBRARIES, versions
from harness.hardware.info import Device
from harness.records.measurement import MatmulSpeed
from harness.workers.local import LocalExecutor
from harness.workers.look import find, report_on


@dataclass
class Findings:
    """`problems` stop a sweep, `advice` does not; each is a sentence with its remedy."""

    python: str
    versions: dict[str, str]
    tested: dict[str, str]
    device: Device | None = None
    rates: dict[str, MatmulSpeed] = field(default_factory=dict)
    hub: bool = False
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def examine(device: str, hub: str | None = None, executor: LocalExecutor | None = None) -> Findings:
    """Examines this machine. Raises UserError for a device that is asked for and not there."""
    findings = Findings(sys.version.split()[0], versions(), tested_versions())
    missing = [name for name in LIBRARIES if name not in findings.versions]
    if missing:
        findings.problems.append(f"{', '.join(missing)} not installed: run `make` or `pip install .`")
    # Without torch the device cannot be looked at; the rest is still examined.
    if "torch" in findings.versions:
        with executor or LocalExecutor() as executor:
            findings.device = find(executor, device)
            _time(executor, findings)
    findings.hub = network.reachable(hub or network.hub())
    _advise(findings)
    return findings


def _time(executor: LocalExecutor, findings: Findings) -> None:
    """Times the device that was found, unless somebody measures on it: they would time each other."""
    assert findings.device
    try:
        with device_lock.hold(findings.device):
            findings.rates = report_on(executor, findings.device).rates
    except device_lock.Busy as problem:
        findings.advice.append(f"dtypes were not timed: {problem}")
    except UserError as problem:
        findings.problems.append(str(problem))


def _advise(findings: Findings) -> None:
    advice = findings.advice
    advice += untested(findings.versions)
    if findings.device and findings.device.others:
        advice.append(f"idle beside it: {', '.join(findings.device.others)}; measure one with --device cuda:N")
    if findings.device and findings.device.id == "cpu":
        advice.append("no CUDA device is used: hours on a CPU say little of a GPU, memory and order of models do")
    emulated = [name for name, rate in findings.rates.items() if not rate.native]
    if emulated:
        native = native_dtype(findings.rates)
        advice.append(f"{' and '.join(emulated)} emulated here: slow; {native} is what to train in")
    if not findings.hub:
        advice.append(
            "the hub cannot be reached: weights come from its cache or a folder (--weights PATH), else they are random"
        )


def untested(installed: dict[str, str]) -> list[str]:
    """A sentence for each library of another major version than the tested one (minor, below 1.0)."""
    tested = tested_versions()
    return [
        f"{name} {version} was not tested, {tested[name]} was: pip install {name}=={tested[name]} if it fails"
        for name, version in installed.items()
        if name in tested and _major(version) != _major(tested[name])
    ]


def tested_versions() -> dict[str, str]:
    """The versions that constraints.txt pins."""
    # Beside the package in a checkout, inside it when installed.
    for folder in (Path(__file__).parents[2], Path(__file__).parents[1]):
        if (folder / "constraints.txt").exists():
            text = (folder / "constraints.txt").read_text(encoding="utf-8")
            return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", text, re.MULTILINE))
    return {}


def _major(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[: 1 if not version.startswith("0") else 2])
