"""What would go wrong on this machine before it does: each check gives a sentence with its remedy, or none."""

import os
import shutil
from pathlib import Path

from harness.catalog.accelerators import is_slice
from harness.catalog.models import Catalog
from harness.hardware.info import Device, DeviceReport
from harness.records.measurement import CONTEXT_BYTES

GIB = 2**30
_OTHERS_BYTES = GIB  # on a card, beyond the context of the process that looks
_SHARED_BYTES = GIB  # NCCL and torch's processes pass blocks through it; containers begin with 64 MiB
_RECORD_BYTES = GIB // 2  # of a record with its logs, checkpoints and traces
SHARED_MEMORY = Path("/dev/shm")


def card(report: DeviceReport) -> list[str]:
    """What a card says of itself: a part of one, others on it, its clock held down."""
    advice: list[str] = []
    device = report.device
    if device.kind != "cuda":
        return advice
    if is_slice(device.name):
        advice.append(
            "a MIG slice: memory and speed are a part of the card's and are taken from the probe; NVML gives the whole "
            "card's memory, so peaks are by CUDA's count"
        )
    # The process that looks has a context of its own.
    others = device.total_bytes - report.free_bytes - CONTEXT_BYTES if report.free_bytes is not None else 0
    if others > _OTHERS_BYTES:
        advice.append(
            f"other processes hold {others / GIB:.1f} of this card's {device.total_bytes / GIB:.1f} GiB: cells run out "
            "of memory earlier; end them, see nvidia-smi"
        )
    # Large products always meet a card's power cap; the rest is not as it should be.
    held = [name for name in report.state.throttle if name != "power cap"] if report.state else []
    if held:
        celsius = f" at {report.state.celsius:.0f} C" if report.state and report.state.celsius is not None else ""
        advice.append(
            f"{' and '.join(held)} holds the clock down after seconds of work{celsius}: hours of training will be "
            "slower; look at its cooling and power supply"
        )
    return advice


def shared_memory(device: Device, folder: Path = SHARED_MEMORY) -> str | None:
    """Whether several cards may lack shared memory for training together."""
    if not device.others or not folder.is_dir():
        return None
    total = shutil.disk_usage(folder).total
    if total >= _SHARED_BYTES:
        return None
    return f"{folder} has {total / 2**20:.0f} MiB, little for --gpus: start the container with --shm-size=1g"


def disk(catalog: Catalog, results: Path, hub_cache: Path | None = None) -> list[str]:
    """Whether the disks hold a record, and the weights of every model of the catalog."""
    advice = []
    if (free := _free(results)) < _RECORD_BYTES:
        advice.append(f"{free / GIB:.1f} GiB are free for records in {results}: make room, or give --results FOLDER")
    # Weights come in 16 bits.
    sizes = {spec.name: 2e6 * spec.params_m for spec in catalog.models.values() if spec.params_m}
    cache = hub_cache or hub_cache_folder()
    free = _free(cache)
    too_big = [name for name, size in sizes.items() if size > free]
    if too_big:
        names = ", ".join(too_big[:3]) + (f" and {len(too_big) - 3} more" if len(too_big) > 3 else "")
        advice.append(
            f"{free / GIB:.1f} GiB are free for weights in {cache}, too little for {names}: make room, or set HF_HOME"
        )
    return advice


def hub_cache_folder() -> Path:
    """Where huggingface_hub keeps weights."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def _free(folder: Path) -> float:
    """Bytes that are free where `folder` is or would be made; infinite where the system does not say."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            break
    return float("inf")
