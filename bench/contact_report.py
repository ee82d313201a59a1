"""The report of bench.first_contact: findings by step, 80 columns."""

import platform
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harness.hardware.environment import commit, versions

WIDTH = 80
_WORDS = {True: "held", False: "FAILED", None: "-"}  # None: what does not apply here


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: whether it held, and in which numbers; None where it does not apply here."""

    held: bool | None
    subject: str
    text: str


@dataclass
class Report:
    """Findings and seconds by step, in the order of the steps."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, step: str, finding: Finding) -> None:
        self.findings.setdefault(step, []).append(finding)

    @property
    def all(self) -> list[Finding]:
        return [finding for findings in self.findings.values() for finding in findings]

    @property
    def held(self) -> bool:
        """Whether something was tried and nothing failed."""
        return bool(self.all) and all(finding.held is not False for finding in self.all)

    def text(self, device_name: str) -> str:
        """The whole report."""
        installed = ", ".join(f"{name} {version}" for name, version in versions().items())
        lines = [
            *_wrapped(f"First contact with {device_name}", ""),
            *_wrapped(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {(commit() or 'unknown')[:12]}", ""),
            *_wrapped(f"Python {platform.python_version()}, {installed}", ""),
        ]
        for step, findings in self.findings.items():
            took = f" ({self.seconds[step]:.0f} s)" if step in self.seconds else ""
            lines += ["", f"{step}{took}"]
            for finding in findings:
                lines += _wrapped(f"  {_WORDS[finding.held]:6} {finding.subject}: {finding.text}", " " * 11)
        # What failed once more, by itself.
        failed = [(step, f) for step, findings in self.findings.items() for f in findings if f.held is False]
        counts = {word: sum(finding.held is held for finding in self.all) for held, word in _WORDS.items()}
        total = f"{counts['held']} held, {counts['FAILED']} failed, {counts['-']} do not apply here"
        lines += ["", f"{total}; {sum(self.seconds.values()):.0f} s"]
        for step, finding in failed:
            lines += _wrapped(f"  {step}: {finding.subject}: {finding.text}", "    ")
        return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
