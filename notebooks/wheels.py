"""A folder of wheels to attach to a notebook without internet: the harness and all that it needs, but torch.

    make wheels
    python -m notebooks.wheels [--folder dist/wheels] [--python-version 3.12] [--platform manylinux_2_28_x86_64]

Torch and what only torch brings (nvidia-*, triton ...) are left out: pip resolves with a stand-in for torch, which has
its version and no dependencies, and which is then dropped. At the end the folder is tried: installed without an index
into a new environment that has torch and nothing else. Another Python or platform cannot be tried here, which is said.
"""

import argparse
import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from harness.errors import UserError

ROOT = Path(__file__).parents[1]
MOST_BYTES = 300 * 10**6
_NEEDED_BYTES = 10**9  # of the disk, for the wheels and what pip unpacks
_WITHIN_S = 600
_EXTRAS = "gguf"  # small, and attached weights may be such a file
_STAND_IN = "stand.in"  # the local version of the torch that is none


def make(folder: Path, python_version: str | None = None, platforms: Sequence[str] = ()) -> list[Path]:
    """Fills `folder`, whole or not at all, and returns its wheels. Raises UserError in a line for what is in the way:
    files of others in the folder, no room, no index, a package without a wheel for that platform."""
    before = list(folder.iterdir()) if folder.is_dir() else []
    if others := [path for path in before if path.suffix != ".whl"]:
        raise UserError(f"{folder} holds {others[0].name}, which is no wheel; name an empty --folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        raise UserError(f"{folder}: cannot be made ({problem.strerror}); name another --folder") from None
    if free < _NEEDED_BYTES:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free, and a GB is needed; make room, or name another --folder"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheels-") as made:
        built = Path(made)
        _pip("wheel", "--no-deps", "-w", str(built), str(ROOT))
        stand_ins = built / "stand-in"
        stand_ins.mkdir()
        stand_in(stand_ins, torch_version())
        (own,) = built.glob("ttft_bench-*.whl")
        _pip(*resolve_command(own, built, stand_ins, python_version, platforms))
        wheels = [path for path in built.glob("*.whl") if not path.name.startswith("torch-")]
        for path in before:
            path.unlink()
        return sorted(Path(shutil.move(path, folder / path.name)) for path in wheels)


def resolve_command(
    own: Path, folder: Path, stand_ins: Path, python_version: str | None, platforms: Sequence[str]
) -> list[str]:
    """pip's arguments that fetch what `own` needs into `folder`; torch is taken from `stand_ins`."""
    constraints = stand_ins / "constraints.txt"
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = torch_version()
    constraints.write_text(re.sub(r"^torch==.*$", f"torch=={version}+{_STAND_IN}", pins, flags=re.M), encoding="utf-8")
    common = ["--find-links", str(stand_ins), "-c", str(constraints)]
    if not python_version and not platforms:
        return ["wheel", "-w", str(folder), *common, f"{own}[{_EXTRAS}]"]
    # For another machine pip takes nothing that it would have to build.
    chosen = [word for name in platforms for word in ("--platform", name)]
    chosen += ["--python-version", python_version] if python_version else []
    return ["download", "-d", str(folder), "--only-binary", ":all:", *chosen, *common, f"{own}[{_EXTRAS}]"]


def torch_version() -> str:
    """The torch that constraints.txt pins."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return next(iter(re.findall(r"^torch==([0-9.]+)", text, re.M)))


def stand_in(folder: Path, version: str) -> Path:
    """A wheel that is called torch, and is empty."""
    whole = f"{version}+{_STAND_IN}"
    info = f"torch-{whole}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {whole}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: ttft-bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    path = folder / f"torch-{whole}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _pip(*words: str, alone: bool = False) -> None:
    """Runs pip; `alone` without the user's settings, which may name further folders of wheels. Raises UserError."""
    settings = {name: value for name, value in os.environ.items() if not (alone and name.startswith("PIP_"))}
    settings |= {"PIP_CONFIG_FILE": os.devnull} if alone else {}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", *words, "-q"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, env=settings)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"pip {words[0]} took over {_WITHIN_S} s; is there an index? pip config list says which"
        ) from None
    if done.returncode:
        raise UserError(why(done.stderr, "install" if alone else words[0]))


def why(stderr: str, verb: str) -> str:
    """What pip's errors come to, in a line with its remedy."""
    errors = [line for line in stderr.splitlines() if re.match(r"(ERROR|error): ", line)] or ["it said nothing"]
    # A package that an index does not have, and no index at all, end in the same line.
    if re.search(r"NewConnectionError|NameResolution|ConnectTimeout|ProxyError|Network is unreachable", stderr):
        return "the package index cannot be reached; wheels are made where there is one (pip config list says which)"
    if "No space left" in stderr:
        return "no room on the disk while wheels were made; make room, or name another --folder"
    return f"pip {verb}: {re.sub('^(ERROR|error): ', '', errors[-1])[:240]}; other pins or another --platform may do"


# ---- The trial


def attempt(folder: Path) -> str:
    """Installs from `folder` alone into a new environment that has this one's torch and what that needs, and runs a
    verb there. Returns what was done; raises UserError where it fails."""
    try:
        needed = closure("torch")
    except metadata.PackageNotFoundError as problem:
        return f"not tried: {problem.name} is not installed here"
    with tempfile.TemporaryDirectory(prefix="wheels-") as made:
        venv, lent = Path(made) / "venv", Path(made) / "torch"
        # Without pip and the setuptools of its bundle, which may be older than torch wants.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
        lent.mkdir()
        for name in needed:
            lend(name, lent)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "torch.pth").write_text(f"{lent}\n", encoding="utf-8")
        python = str(venv / "bin" / "python")
        wanted = f"ttft-bench[{_EXTRAS}]"
        _pip("--python", python, "install", "--no-index", "--find-links", str(folder), wanted, alone=True)
        code = "import harness, torch; print(torch.__version__, torch.__file__, harness.__file__)"
        for command in ([python, "-c", code], [str(venv / "bin" / "ttft-bench"), "models"]):
            # From a folder where no checkout is in the way.
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=made, env={"HOME": made, "PATH": "/usr/bin:/bin"}
            )
            if done.returncode:
                raise UserError(
                    f"the wheels are installed but do not work: {(done.stderr or done.stdout).strip()[-240:]}"
                )
            if command[0] == python and (str(lent) not in done.stdout or str(site) not in done.stdout):
                raise UserError(f"the wheels replaced torch, or are not what ran: {done.stdout.strip()}")
    return f"installed without an index beside torch {metadata.version('torch')}, and `ttft-bench models` ran"


def closure(name: str) -> list[str]:
    """The distributions that `name` needs here, itself included, with those of the extras that are asked for."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        one, extra = waiting.pop()
        if (one, extra) in found:
            continue
        found.add((one, extra))
        for requirement in map(Requirement, metadata.requires(one) or ()):
            # What is not here was not needed here: another platform's.
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if wanted and _here(requirement.name):
                waiting += [(requirement.name, more) for more in ("", *requirement.extras)]
    return sorted({one for one, _ in found})


def _here(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def lend(name: str, folder: Path) -> None:
    """Links the distribution's files at the top of site-packages into `folder`."""
    found = metadata.distribution(name)
    tops = {Path(str(path)).parts[0] for path in found.files or () if not str(path).startswith("..")}
    for top in tops - {"__pycache__", "bin"}:
        source, link = Path(str(found.locate_file(top))), folder / top
        if source.exists() and not link.exists():
            link.symlink_to(source)


def size(wheels: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in wheels)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "dist" / "wheels")
    parser.add_argument("--python-version", help="of the notebook, as in 3.12; by default this one")
    parser.add_argument("--platform", action="append", default=[], help="as in manylinux_2_28_x86_64; may be repeated")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        wheels = make(options.folder, options.python_version, options.platform)
        made_s = time.monotonic() - began
        print(f"{len(wheels)} wheels, {size(wheels) / 1e6:.0f} MB, in {options.folder} after {made_s:.0f} s")
        if size(wheels) > MOST_BYTES:
            raise UserError(f"{options.folder} is over {MOST_BYTES / 1e6:.0f} MB: is torch's own among these wheels?")
        if options.platform or options.python_version not in (None, platform.python_version().rpartition(".")[0]):
            print("not tried: these wheels are for another Python or platform")
        else:
            print(f"{attempt(options.folder)}, after {time.monotonic() - began:.0f} s")
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
