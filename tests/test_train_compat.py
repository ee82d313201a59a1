"""What differs between the versions of the libraries that the project takes."""

import pytest
import torch

from harness.train.compat import compiled_when_called, without_storage


def test_without_storage_autocast_is_off_where_torch_refuses_to_answer(monkeypatch):
    """torch 2.6 and 2.7 know no autocast of the meta device, and raise when they are asked for it."""

    def refusing(*device_type):
        if device_type == ("meta",):
            raise RuntimeError("unknown device type for autocast in get_autocast_dispatch_key_from_device_type")
        return device_type

    monkeypatch.setattr(torch, "is_autocast_enabled", refusing)
    with without_storage():
        assert torch.is_autocast_enabled("meta") is False
        assert torch.is_autocast_enabled("cuda") == ("cuda",) and torch.is_autocast_enabled() == ()
        with torch.autocast("meta"):
            pass
    assert torch.is_autocast_enabled is refusing
    with pytest.raises(RuntimeError):
        torch.is_autocast_enabled("meta")


def test_what_is_decorated_is_compiled_when_it_is_called_first(monkeypatch):
    made = []

    def recording(function, **options):
        made.append(options)
        return lambda x: ("compiled", function(x))

    monkeypatch.setattr(torch, "compile", recording)
    with compiled_when_called():

        @torch.compile
        def plain(x):
            return x

        @torch.compile(dynamic=False)
        def with_options(x):
            return x + 1

    assert made == [] and torch.compile is recording and plain.__name__ == "plain"
    assert [plain(1), plain(2), with_options(1)] == [("compiled", 1), ("compiled", 2), ("compiled", 2)]
    assert made == [{}, {"dynamic": False}]
