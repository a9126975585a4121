"""Networks load without a word, and what the user had set stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from toybox_training.folder import load_networks
from transformers.utils import logging

from sdi_gs.priors.catalog import TOYBOX
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.quiet import without_progress_bars


def test_the_packaged_networks_load_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    folder = TOYBOX.packaged
    assert folder is not None
    load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    load_networks(Path(folder))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_bars_are_put_back() -> None:
    assert logging.is_progress_bar_enabled()
    with pytest.raises(ValueError, match="inside"), without_progress_bars():
        assert not logging.is_progress_bar_enabled()
        raise ValueError("inside")
    assert logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()


def test_bars_that_the_user_has_not_stay_away() -> None:
    disable_progress_bars()
    try:
        with without_progress_bars():
            pass
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()
        logging.enable_progress_bar()
