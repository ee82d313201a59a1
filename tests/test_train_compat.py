"""What differs between the versions of the libraries that the project takes."""

import pytest
import torch

from harness.train.compat import without_storage


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
