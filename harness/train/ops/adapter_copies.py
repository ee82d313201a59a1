"""What the micro-steps of one optimiser step share: the adapter rounded to the products' dtype once, and its gradients,
which are widened and added up many at a time.

An adapter has hundreds of small matrices. One by one, rounding, widening and adding them is seven launches per adapted
matrix and micro-step; a step of few tokens on a fast card takes as long as its launches.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

_Matrices = tuple[torch.Tensor, ...]
# Gradients that wait are added up when they are so large together: what waits lives beside the activations.
_MOST_WAITING_BYTES = 2**25


class AdapterCopies:
    """Rounded copies, valid until `forget`, and gradients that wait to be added to `.grad`.

    Without `keeps`, copies live as long as the graph that reads them: where all layers are recomputed, that is one
    layer's at a time.
    """

    def __init__(self, keeps: bool = True) -> None:
        self.keeps = keeps
        self.outputs: dict[int, tuple] = {}  # harness.train.ops.joint_lora: outputs that wait to be fetched
        # By id of the first parameter, for tensors hash slowly: the versions that were copied, and the copy.
        self._copies: dict[int, tuple[list[int], torch.Tensor]] = {}
        self._requested: dict[int, tuple[_Matrices, torch.dtype]] = {}  # in the steps before
        self._waiting: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # (parameter, gradient)
        self._waiting_bytes = 0

    def expect(self, requests: Iterable[_Matrices], dtype: torch.dtype) -> None:
        """Has `requests` of `rounded` answered together, as those are that a step before made."""
        self._requested |= {id(matrices[0]): (matrices, dtype) for matrices in requests if matrices[0].dtype != dtype}

    def rounded(self, matrices: _Matrices, dtype: torch.dtype) -> torch.Tensor:
        """`matrices`, parameters of the same width, one below the other in `dtype`."""
        if not self.keeps or matrices[0].dtype == dtype:
            return _joined(matrices, dtype)
        # A step's first request rounds all that the step before requested.
        if not self._copies and self._requested:
            self._round_all()
        versions = [matrix._version for matrix in matrices]
        known, copy = self._copies.get(id(matrices[0]), (None, None))
        if copy is None or known != versions or copy.dtype != dtype:
            copy = _joined(matrices, dtype)
            self._copies[id(matrices[0])] = versions, copy
            self._requested[id(matrices[0])] = matrices, dtype
        return copy

    def take(self, matrix: torch.Tensor, grad: torch.Tensor) -> torch.Tensor | None:
        """Keeps `grad`, in any dtype, for `matrix`'s `.grad`; returns what is left to autograd: nothing, or all where
        somebody has a hook on it."""
        if matrix._backward_hooks:
            return grad.to(matrix.dtype)
        if id(matrix) in self._waiting:
            self.add_up()
        self._waiting[id(matrix)] = matrix, grad
        self._waiting_bytes += grad.nbytes
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self.add_up()
        return None

    @torch.no_grad()
    def add_up(self) -> None:
        """Adds all gradients that wait to the parameters' `.grad`."""
        waiting, self._waiting, self._waiting_bytes = list(self._waiting.values()), {}, 0
        # In the parameters' dtype.
        wide = [grad if grad.dtype == p.dtype else torch.empty_like(p) for p, grad in waiting]
        widened = [(new, grad) for new, (_, grad) in zip(wide, waiting, strict=True) if new is not grad]
        if widened:
            torch._foreach_copy_(*zip(*widened, strict=True))
        present = [(p.grad, new) for new, (p, _) in zip(wide, waiting, strict=True) if p.grad is not None]
        if present:
            torch._foreach_add_(*zip(*present, strict=True))
        for new, (p, _) in zip(wide, waiting, strict=True):
            if p.grad is None:
                p.grad = new

    def forget(self) -> None:
        """Drops the copies, because the adapter changes, and the gradients that wait."""
        self._copies.clear()
        self._waiting, self._waiting_bytes = {}, 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it adapters are rounded, and their gradients taken, by this object. A part that fails leaves none."""
        _current.append(self)
        try:
            yield
            self.add_up()
        finally:
            _current.pop()
            self.outputs.clear()
            self._waiting, self._waiting_bytes = {}, 0

    def _round_all(self) -> None:
        pairs = []
        for first, (matrices, dtype) in self._requested.items():
            rows = [matrix.shape[0] for matrix in matrices]
            copy = matrices[0].new_empty(sum(rows), matrices[0].shape[1], dtype=dtype)
            self._copies[first] = [matrix._version for matrix in matrices], copy
            pairs += zip(copy.split(rows), matrices, strict=True)
        with torch.no_grad():
            torch._foreach_copy_(*zip(*pairs, strict=True))


def _joined(matrices: _Matrices, dtype: torch.dtype) -> torch.Tensor:
    return (matrices[0] if len(matrices) == 1 else torch.cat(matrices)).detach().to(dtype)


class _Alone(AdapterCopies):
    """Outside a step: nothing is shared, and autograd adds up the gradients."""

    def __init__(self) -> None:
        super().__init__(keeps=False)

    def take(self, matrix: torch.Tensor, grad: torch.Tensor) -> torch.Tensor | None:
        return grad.to(matrix.dtype)


_current: list[AdapterCopies] = [_Alone()]


def current() -> AdapterCopies:
    """The object whose `used` surrounds this call, else one that shares nothing."""
    return _current[-1]
