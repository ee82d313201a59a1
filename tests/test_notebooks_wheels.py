"""The folder of wheels: what pip is told, that torch is never among them, and what is refused in a line. No network."""

import subprocess
import sys
import zipfile
from collections import namedtuple

import pytest

from harness.errors import UserError
from notebooks import wheels


class Pip:
    """Stands in for pip: writes the wheels that it is asked for, or fails with `stderr`."""

    def __init__(self, monkeypatch, stderr=""):
        self.commands, self.stderr = [], stderr
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command, **options):
        self.commands.append(command)
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        verb = next(word for word in ("wheel", "download") if word in command)
        folder = wheels.Path(command[command.index("-w" if verb == "wheel" else "-d") + 1])
        names = ["ttft_bench-0.1.0"] if "--no-deps" in command else ["peft-0.21.2", "torch-2.14.1+stand.in"]
        for name in names:
            (folder / f"{name}-py3-none-any.whl").write_bytes(b"x" * 10)
        return subprocess.CompletedProcess(command, 0, "", "")


def test_all_but_torch_ends_up_in_the_folder(tmp_path, monkeypatch):
    pip, folder = Pip(monkeypatch), tmp_path / "dist" / "wheels"
    made = wheels.make(folder)
    assert [path.name.partition("-")[0] for path in made] == ["peft", "ttft_bench"] and wheels.size(made) == 20
    # Made again they replace what was there; nothing else is left beside it.
    (folder / "old-1-py3-none-any.whl").touch()
    assert wheels.make(folder) == made == sorted(folder.iterdir())
    assert list(folder.parent.iterdir()) == [folder]
    assert not any(word.startswith("--platform") for command in pip.commands for word in command)
    # Attached weights may be a GGUF file, whose package is small.
    assert pip.commands[-1][-2].endswith("ttft_bench-0.1.0-py3-none-any.whl[gguf]")


def test_for_another_machine_only_wheels_are_taken(tmp_path, monkeypatch):
    pip = Pip(monkeypatch)
    wheels.make(tmp_path / "wheels", "3.12", ["manylinux_2_28_x86_64", "manylinux2014_x86_64"])
    command = pip.commands[-1]
    words = ["--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    assert command[command.index("download") + 3 :][:8] == [*words, "--python-version", "3.12"]


def test_pip_resolves_with_a_torch_that_needs_nothing(tmp_path):
    path = wheels.stand_in(tmp_path, wheels.torch_version())
    text = zipfile.ZipFile(path).read(f"torch-{wheels.torch_version()}+stand.in.dist-info/METADATA").decode()
    assert "Requires-Dist" not in text
    wheels.resolve_command(tmp_path / "own.whl", tmp_path, tmp_path, None, ())
    pins = (tmp_path / "constraints.txt").read_text()
    assert f"torch=={wheels.torch_version()}+stand.in\n" in pins and "transformers==" in pins
    # pip itself takes it for a wheel of torch.
    target = tmp_path / "site"
    words = ["install", "-q", "--no-index", "--disable-pip-version-check", "--target", str(target), str(path)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    assert [folder.name for folder in target.iterdir()] == [f"torch-{wheels.torch_version()}+stand.in.dist-info"]


def test_what_is_in_the_way_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex, which is no wheel"):
        wheels.make(tmp_path)
    with pytest.raises(UserError, match="cannot be made"):
        wheels.make(tmp_path / "thesis.tex" / "wheels")
    usage = namedtuple("Usage", "free")(free=10**8)
    monkeypatch.setattr(wheels.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"0\.1 GB are free"):
        wheels.make(tmp_path / "wheels")


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (
            "WARNING: Retrying ... NewConnectionError('[Errno 111]')\nERROR: No matching distribution",
            "cannot be reached",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", "no room on the disk"),
        ("ERROR: No matching distribution found for x\nmore", "No matching distribution found for x; other pins"),
        ("", "it said nothing"),
    ],
)
def test_pips_errors_are_a_line(stderr, said):
    line = wheels.why(stderr, "wheel")
    assert said in line and "\n" not in line


def test_where_pip_fails_the_folder_stays_as_it_was(tmp_path, monkeypatch):
    Pip(monkeypatch, "ERROR: No matching distribution found for x")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/old-1-py3-none-any.whl").touch()
    with pytest.raises(UserError, match="pip wheel: No matching"):
        wheels.make(tmp_path / "wheels")
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["old-1-py3-none-any.whl"]


def test_what_torch_needs_is_lent_with_it(tmp_path):
    """Of a smaller package, for torch has gigabytes."""
    names = wheels.closure("rich")
    assert {"rich", "markdown-it-py", "mdurl"} <= set(names) and "jinja2" not in names
    wheels.lend("rich", tmp_path)
    assert (tmp_path / "rich" / "__init__.py").exists() and any(tmp_path.glob("rich-*.dist-info"))
