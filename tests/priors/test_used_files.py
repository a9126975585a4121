"""A run's own files: parsed, hashed when the run starts, compared when it goes on, recorded in its summary."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.used_files import as_records, with_sums
from sdi_gs.settings.priors import lora_and_weight
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style.safetensors", ("style.safetensors", 1.0)),
        ("style.safetensors:0.8", ("style.safetensors", 0.8)),
        ("style.safetensors:-1", ("style.safetensors", -1.0)),
        ("C:\\loras\\style.safetensors", ("C:\\loras\\style.safetensors", 1.0)),
        (":0.5", (":0.5", 1.0)),
    ],
)
def test_a_weight_stands_behind_the_file(text: str, expected: tuple[str, float]) -> None:
    assert lora_and_weight(text) == expected


def test_a_file_whose_name_ends_like_a_weight_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "style:0.5"
    file.touch()
    assert lora_and_weight(str(file)) == (str(file), 1.0)


@pytest.mark.parametrize("weight", ["nan", "inf", "1000"])
def test_a_weight_that_is_no_use_is_refused(weight: str) -> None:
    with pytest.raises(ValueError, match="lora weight must be -100 to 100"):
        RunConfig(lora=(f"style.safetensors:{weight}",))


def test_the_files_are_those_of_the_start(tmp_path: Path) -> None:
    for name in ("model.safetensors", "style.safetensors", "word.safetensors"):
        (tmp_path / name).write_text(name)
    config = RunConfig(
        prior=str(tmp_path / "model.safetensors"),
        lora=(f"{tmp_path / 'style.safetensors'}:0.5",),
        embedding=(str(tmp_path / "word.safetensors"),),
    )
    started = with_sums(config)
    sums = [
        sha256(name.encode()).hexdigest() for name in ("model.safetensors", "style.safetensors", "word.safetensors")
    ]
    assert list(started.prior_sums) == sums
    assert with_sums(started) == started
    assert config_from_dict(config_to_dict(started)) == started
    assert as_records(started) == [
        {"file": str(tmp_path / "model.safetensors"), "sha256": sums[0]},
        {"file": str(tmp_path / "style.safetensors"), "sha256": sums[1], "weight": 0.5},
        {"file": str(tmp_path / "word.safetensors"), "sha256": sums[2]},
    ]
    (tmp_path / "style.safetensors").write_text("other")
    with pytest.raises(UserError, match=r"style\.safetensors changed since this run's config was written"):
        with_sums(started)
    (tmp_path / "style.safetensors").unlink()
    with pytest.raises(UserError, match="there is no file .*style.safetensors: check --lora"):
        with_sums(replace(config))


def test_a_run_without_files_has_none_on_record() -> None:
    assert with_sums(RunConfig()) == RunConfig()
    assert as_records(RunConfig()) == []


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (RunConfig(lora=("style.safetensors",)), "--lora"),
        (RunConfig(embedding=("word.safetensors",)), "--embedding"),
        (RunConfig(prior_type="v_prediction"), "--prior-type"),
    ],
)
def test_a_prior_without_a_network_refuses_changes_of_one(config: RunConfig, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} changes a network, and toybox-ideal has none"):
        load_prior(config, device="cpu")
