"""What is known of a cell before it runs: whether it is worth a run, at which micro-batch, and for about how long."""

from dataclasses import replace

from harness.hardware.info import DeviceReport
from harness.measure import plan
from harness.measure.config import SweepConfig
from harness.measure.timing import MIN_SECONDS
from harness.predict.cells import SMALLEST_RUN, CellPredictor, Judgement, smallest_run_s
from harness.predict.prediction import Prediction
from harness.predict.variants import default_micro_batch, halved, with_micro_batch
from harness.records.cell import Cell

# Most seconds of a card's soaking: before the first cell, and before others, for it cools while a model is loaded.
# Who samples for a shorter time than the default gets by with less of it.
_SOAK_S, _SOAK_AGAIN_S, _SOAK_TIMES = 180.0, 45.0, 3.0


class Foresight:
    """A sweep's view of its cells, by `predictor`, on one kind of device."""

    def __init__(self, config: SweepConfig, report: DeviceReport, predictor: CellPredictor):
        self.config, self.report, self.predictor = config, report, predictor
        kind = report.device.kind
        self.on_card = kind == "cuda"
        self.sample_s, self.cap_s = config.sample_seconds[kind], config.cap_seconds[kind]
        arc_lengths = self.on_card if config.arc_lengths is None else config.arc_lengths
        self.arc_s = self.sample_s if arc_lengths else 0.0

    def soak_s(self, first: bool) -> float:
        """Most seconds of soaking before a cell is sampled, on a card that this is the `first` cell of, or another."""
        most = min(_SOAK_S, _SOAK_TIMES * self.sample_s) if self.on_card else 0.0
        return most if first else min(most, _SOAK_AGAIN_S)

    def predict(self, cell: Cell) -> Prediction | str:
        return self.predictor.predict(cell)

    def judge(self, cell: Cell) -> Judgement:
        return self.predictor.judge(cell, self.cap_s)

    def sized(self, cell: Cell) -> Cell:
        """`cell` with the micro-batch that it has by default on a card."""
        if not (self.on_card and self.config.fill_memory) or cell.context > cell.model.max_context:
            return cell
        alone = self.predict(cell)
        return cell if isinstance(alone, str) else with_micro_batch(cell, default_micro_batch(alone))

    def variants(self, cell: Cell) -> list[Cell]:
        """`cell` and what is run in its place where memory does not suffice for it."""
        return halved(cell) if self.config.fill_memory else [cell]

    def shorter(self, cell: Cell) -> Cell | None:
        """`cell` at the longest power of two below its context whose smallest run stays under the cap.

        None where there is no such context, or where the dtype is emulated: the native one is measured beside it.
        """
        rate = self.report.rates.get(cell.compute_dtype)
        if rate is None or not rate.native:
            return None
        # Powers of two, halved until one fits the cap.
        context = 1 << ((cell.context - 1).bit_length() - 1)
        while context >= plan.SHORTEST:
            variant = replace(
                self.variants(cell)[-1], context=context, why=f"shorter: {cell.context} and above are too slow"
            )
            if not self.judge(variant).status:
                return self.sized(variant)
            context //= 2
        return None

    def expected_s(self, cell: Cell) -> float:
        """About how long the cell's process will run; 0 for a cell that will not be started."""
        if cell.context > cell.model.max_context:
            return 0.0
        predicted = self.predict(cell)
        if isinstance(predicted, str):
            return 0.0
        smallest_s = smallest_run_s(predicted)
        if smallest_s > self.cap_s:
            return 0.0
        # The median is known well enough after some seconds and some micro-steps.
        enough = max(MIN_SECONDS[self.report.device.kind], 10 * predicted.micro_s)
        sampling_s = min(max(0.0, self.sample_s - SMALLEST_RUN * predicted.micro_s), enough)
        return smallest_s + self.soak_s(first=False) + self.arc_s + sampling_s
