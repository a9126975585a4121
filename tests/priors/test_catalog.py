"""Names of priors and where they lead."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.priors import catalog
from sdi_gs.priors.catalog import CATALOG, SD21, SD21_BASE, load_prior
from sdi_gs.priors.fetch import SourceUnavailableError
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.guidance import GuidanceConfig, Renoise
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.run import RunConfig


def load(name: str, **compute: Any) -> Any:
    return load_prior(RunConfig(prior=name, compute=ComputeConfig(**compute)), device="cpu")


def test_looking_at_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; import sdi_gs.priors.catalog;"
        "print(*{'torch', 'numpy', 'numba', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_entry_is_pinned_to_a_commit_and_named_once() -> None:
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        for source in entry.sources:
            assert source.repo_id.count("/") == 1
            assert source.revision is not None
            assert len(bytes.fromhex(source.revision)) == 20
        assert bool(entry.sources) == (entry.download_bytes > 0)


def test_the_ideal_prior_is_made_with_its_config() -> None:
    config = RunConfig(prior="toybox-ideal", ideal_prior=IdealPriorConfig(image_size=32))
    prior = load_prior(config, device="cpu")
    assert (prior.name, prior.image_size) == ("toybox-ideal", 32)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_folder_is_loaded_as_it_stands(pristine_models: dict[str, Path], prediction_type: str) -> None:
    prior = load(str(pristine_models[prediction_type]))
    assert isinstance(prior, LatentDiffusionPrior)
    assert prior.prediction_type == prediction_type
    assert prior.unet.dtype == torch.float32
    assert load(str(pristine_models[prediction_type]), precision="bfloat16").unet.dtype == torch.bfloat16


class FakeHub:
    """A hub that has some of the repositories that it is asked for."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.asked: list[tuple[str, str | None]] = []

    def snapshot_download(self, repo_id: str, *, revision: str | None, **_: Any) -> str:
        self.asked.append((repo_id, revision))
        if repo_id not in self.repositories:
            raise FileNotFoundError(f"404: {repo_id}\nwith more lines")
        return str(self.repositories[repo_id])


def put_in_place(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=None))
    # The toy models that it has are not the published ones.
    sources = tuple(replace(source, known_sha256={}) for source in SD21_BASE.sources)
    entries = tuple(replace(entry, sources=sources) if entry is SD21_BASE else entry for entry in CATALOG)
    monkeypatch.setattr(catalog, "CATALOG", entries)


@pytest.mark.parametrize("entry", [SD21_BASE, SD21], ids=lambda entry: entry.name)
def test_a_known_name_leads_to_its_first_source(
    entry: Any, pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = entry.sources[0]
    hub = FakeHub({first.repo_id: pristine_models[entry.prediction_type]})
    put_in_place(hub, monkeypatch)
    prior = load(entry.name)
    assert hub.asked == [(first.repo_id, first.revision)]
    assert prior.prediction_type == entry.prediction_type


def test_the_next_mirror_is_tried_where_the_first_has_nothing(
    pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = SD21_BASE.sources
    hub = FakeHub({second.repo_id: pristine_models["epsilon"]})
    put_in_place(hub, monkeypatch)
    assert load("sd21-base").name == second.repo_id
    assert hub.asked == [(first.repo_id, first.revision), (second.repo_id, second.revision)]


def test_a_broken_download_is_not_papered_over_by_the_next_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub({source.repo_id: tmp_path for source in SD21_BASE.sources})
    put_in_place(hub, monkeypatch)
    with pytest.raises(UserError, match="lacks its tokenizer"):
        load("sd21-base")
    assert len(hub.asked) == 1


def test_one_line_names_all_mirrors_where_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(FakeHub({}), monkeypatch)
    with pytest.raises(SourceUnavailableError) as caught:
        load("sd21-base")
    line = str(caught.value)
    assert "\n" not in line
    for word in ("sd2-community/", "Manojb/", "HF_ENDPOINT", "404"):
        assert word in line


@pytest.mark.parametrize("name", ["", "toybox-net", "sd14", "a/b/c", "SD21"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(UserError, match=r"toybox-ideal, toybox, sd21-base, sd21.*folder.*owner/name"):
        load(name)


def test_a_hub_id_goes_to_the_hub_without_a_revision(
    pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub({"owner/name": pristine_models["epsilon"]})
    put_in_place(hub, monkeypatch)
    assert load("owner/name").name == "owner/name"
    assert hub.asked == [("owner/name", None)]


@pytest.mark.parametrize(("renoise", "published"), [("paper", False), ("reference", True)])
def test_the_published_form_shows_the_prior_negative_timesteps(
    pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, renoise: Renoise, published: bool
) -> None:
    put_in_place(FakeHub({SD21_BASE.sources[0].repo_id: pristine_models["epsilon"]}), monkeypatch)
    for name in (str(pristine_models["epsilon"]), "sd21-base"):
        config = RunConfig(prior=name, guidance=GuidanceConfig(renoise=renoise))
        prior: Any = load_prior(config, device="cpu")
        assert prior.config.published_source_time == published
