"""What `harness doctor` finds: the device, its dtypes, the libraries, the hub, and how to mend what is missing."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import network
from harness.catalog import models
from harness.catalog.precisions import native_dtype
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.environment import LIBRARIES, versions
from harness.hardware.info import Device
from harness.measure import doctor_checks, trial
from harness.records.measurement import MatmulSpeed
from harness.records.store import RESULTS
from harness.workers.local import LocalExecutor
from harness.workers.look import find, report_on

_CHECKS = 5  # the device, its dtypes, a step in the native precision and one in int4, the hub


@dataclass
class Findings:
    """`problems` stop a sweep, `advice` does not; each is a sentence with its remedy."""

    python: str
    versions: dict[str, str]
    tested: dict[str, str]
    device: Device | None = None
    rates: dict[str, MatmulSpeed] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # of a card
    tried: bool = False  # whether a training step was tried, and ran
    hub: bool = False
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def examine(
    device: str,
    hub: str | None = None,
    executor: LocalExecutor | None = None,
    failures: Callable[..., dict[str, str]] = trial.failures,
    checked: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Examines this machine, and has it train one small step (`failures`, as harness.measure.trial.failures).

    `checked` receives how many of all checks are done, from 0. Raises UserError for a device that is asked for and not
    there.
    """
    checked(0, _CHECKS)
    findings = Findings(sys.version.split()[0], versions(), tested_versions())
    missing = [name for name in LIBRARIES if name not in findings.versions]
    if missing:
        findings.problems.append(f"{', '.join(missing)} not installed: run `make` or `pip install .`")
    # Without torch the device cannot be looked at; the rest is still examined.
    if "torch" in findings.versions:
        with executor or LocalExecutor() as executor:
            try:
                findings.device = find(executor, device)
            except UserError as problem:
                # A card that torch cannot use is a finding; a device that the user names and has not, is not.
                if device != "auto":
                    raise
                findings.problems.append(str(problem))
            else:
                checked(1, _CHECKS)
                _time(executor, findings, failures if not missing else lambda *_: {}, checked)
    findings.hub = network.reachable(hub or network.hub())
    _advise(findings)
    checked(_CHECKS, _CHECKS)
    return findings


def _time(
    executor: LocalExecutor,
    findings: Findings,
    failures: Callable[..., dict[str, str]],
    checked: Callable[[int, int], None],
) -> None:
    """Times the device that was found and tries a step on it, unless somebody measures there: they would time each
    other."""
    assert findings.device
    try:
        with device_lock.hold(findings.device):
            report = report_on(executor, findings.device)
            findings.rates, findings.environment = report.rates, report.environment
            findings.advice += doctor_checks.card(report)
            checked(2, _CHECKS)
            reasons = failures(report, executor, lambda tried: checked(2 + tried, _CHECKS))
    except device_lock.Busy as problem:
        findings.advice.append(f"dtypes were not timed, and no step was tried: {problem}")
    except UserError as problem:
        findings.problems.append(str(problem))
    else:
        findings.tried = not reasons
        # Where only int4 fails, a sweep still measures the rest.
        lines = findings.problems if native_dtype(findings.rates) in reasons else findings.advice
        for name, reason in reasons.items():
            lines.append(f"one training step in {name} does not run here: {reason}{_remedy(findings)}")


def _remedy(findings: Findings) -> str:
    """The tested versions of the libraries that differ from them; torch's is the user's to choose."""
    differing = [
        f"{name}=={version}"
        for name, version in findings.tested.items()
        if name in LIBRARIES and name != "torch" and findings.versions.get(name) != version
    ]
    return f"; the tested versions are: pip install {' '.join(differing)}" if differing else ""


def _advise(findings: Findings) -> None:
    advice = findings.advice
    advice += untested(findings.versions)
    if findings.device and findings.device.others:
        advice.append(_beside(findings.device))
    if findings.device and (line := doctor_checks.shared_memory(findings.device)):
        advice.append(line)
    try:
        advice += doctor_checks.disk(models.load(), RESULTS)
    except UserError as problem:
        findings.problems.append(str(problem))
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


def _beside(device: Device) -> str:
    count = len(device.others) + 1
    alike = device.id == "cuda:0" and all(other.partition(" ")[2] == device.name for other in device.others)
    together = f"; --gpus {count} shares each step among all" if alike else ""
    return f"beside it: {', '.join(device.others)}; bench uses all of one kind, --device cuda:N one{together}"


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
