"""A device as its probe reports it. Knows no torch: it travels between processes."""

from dataclasses import dataclass, field

from harness.records.measurement import CardState, MatmulSpeed, Rate, Size


@dataclass(frozen=True)
class Device:
    """`name` identifies the hardware in records and in the results folder's path: "Tesla T4", or CPU and its cores."""

    id: str  # cpu, cuda:0
    name: str
    total_bytes: int
    uuid: str = "cpu"
    capability: str | None = None
    others: tuple[str, ...] = ()  # further CUDA devices, which this sweep leaves idle
    other_uuids: tuple[str, ...] = ()  # theirs
    partners: tuple[str, ...] = ()  # the uuids of those that share its steps
    threads: int = 1  # of the CPU that a step keeps busy: torch's on a CPU, one per card that launches kernels

    @property
    def alike(self) -> int:
        """Cards of this one's name on the machine, itself and its partners included; 1 on a CPU."""
        # A device of several cards is called "2 x Tesla T4"; another one is listed as "cuda:1 Tesla T4".
        name = self.name.split(" x ", 1)[-1] if self.partners else self.name
        return 1 + len(self.partners) + sum(other.partition(" ")[2] == name for other in self.others)

    @property
    def kind(self) -> str:
        """cpu or cuda."""
        return self.id.partition(":")[0]


@dataclass(frozen=True)
class DeviceReport:
    """A device and the speed of its matrix products by dtype; of a card also what follows.

    `bandwidth` is bytes per second of a large copy, `environment` as harness.hardware.card_environment reads it,
    `free_bytes` what was free before the probe, its own context taken, and `state` what the card said after it.
    """

    device: Device
    rates: dict[str, MatmulSpeed]
    bandwidth: Rate | None = None
    environment: dict[str, str] = field(default_factory=dict)
    free_bytes: Size | None = None
    state: CardState | None = None
