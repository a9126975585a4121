"""The page that shows splats: what is in it, read by Python's own parser, and decoded from its description."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci

from sdi_gs.errors import UserError
from sdi_gs.files.origin import UNKNOWN, Origin
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats import html
from sdi_gs.splats.html import write_html
from sdi_gs.splats.screening import ExportReport
from sdi_gs.splats.splat_cloud import SplatCloud

C0 = 0.28209479177387814
HOSTILE = 'a robot</title></h1></script><script>alert(1)</script><img onerror="alert(2)"> "{{script}}" <!-- \u2028 é 猫'


@dataclass
class Page(HTMLParser):
    """What a page consists of."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Text of an element by its id, or by its name where it has none."""

    def __post_init__(self) -> None:
        super().__init__()
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    @property
    def scene(self) -> dict[str, Any]:
        return json.loads(self.texts["scene"])


def make_cloud(count: int = 40, coefficients: int = 0) -> SplatCloud:
    generator = torch.Generator().manual_seed(count + coefficients)
    return SplatCloud(
        means=torch.randn(count, 3, generator=generator),
        log_scales=torch.randn(count, 3, generator=generator) - 4.0,
        quats=3.0 * torch.randn(count, 4, generator=generator),
        opacity_logit=torch.linspace(-4.0, 5.0, count),
        sh_dc=torch.randn(count, 3, generator=generator) / C0,
        sh_rest=0.5 * torch.randn(count, coefficients, 3, generator=generator),
    )


def written(path: Path, cloud: SplatCloud, origin: Origin = UNKNOWN) -> tuple[Page, ExportReport]:
    report = write_html(path, cloud, options=ExportOptions(), origin=origin, overwrite=False)
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page, report


def decoded(page: Page) -> dict[str, np.ndarray]:
    """The splats of a page, by the layout that its module describes."""
    scene, data = page.scene, base64.b64decode(page.texts["splats"], validate=True)
    count, harmonics = scene["count"], scene["harmonics"]
    places, offset = {}, 0
    for name, kind, width in (
        ("means", "<f4", 3),
        ("log_scales", "<u2", 3),
        ("quats", "<i2", 4),
        ("rgba", "<u2", 4),
        ("rest", "i1", 3 * harmonics),
    ):
        places[name] = np.frombuffer(data, kind, count * width, offset).reshape(count, width).astype(float)
        offset += count * width * np.dtype(kind).itemsize
    assert offset == len(data) == count * (34 + 3 * harmonics)
    return {
        "means": places["means"],
        "log_scales": places["log_scales"] / 65535 * 30 - 20,
        "quats": places["quats"] / 32767,
        "rgb": places["rgba"][:, :3] / 65535 * 8 - 4,
        "alpha": places["rgba"][:, 3] / 65535,
        "rest": places["rest"].reshape(count, harmonics, 3) * scene["harmonic_step"],
    }


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_the_values_are_those_of_the_cloud_within_the_stated_steps(tmp_path: Path, coefficients: int) -> None:
    cloud = make_cloud(coefficients=coefficients)
    page, report = written(tmp_path / "a.html", cloud, Origin(cameras=CameraConfig()))
    found = decoded(page)
    assert (report.written, page.scene["harmonics"]) == (40, coefficients)
    # In the training world, about the origin.
    assert np.array_equal(found["means"], cloud.means.numpy())
    assert np.abs(found["log_scales"] - cloud.log_scales.numpy()).max() < 0.51 * 30 / 65535
    wanted, _ = _quat_scale_to_covar_preci(cloud.quats.double(), torch.ones(40, 3).double() * torch.arange(1, 4))
    turned, _ = _quat_scale_to_covar_preci(
        torch.from_numpy(found["quats"]), torch.ones(40, 3).double() * torch.arange(1, 4)
    )
    assert wanted is not None and turned is not None
    assert float((wanted - turned).abs().max()) < 9 * 4 / 32767
    assert np.abs(found["rgb"] - (0.5 + C0 * cloud.sh_dc.numpy())).max() < 0.51 * 8 / 65535
    assert np.abs(found["alpha"] - 1 / (1 + np.exp(-cloud.opacity_logit.numpy()))).max() < 0.51 / 65535 + 1e-7
    if coefficients:
        largest = float(cloud.sh_rest.abs().max())
        assert np.abs(found["rest"] - cloud.sh_rest.numpy()).max() < 0.51 * largest / 127


def test_a_stranger_s_prompt_is_text_and_nothing_else(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "a.html", make_cloud(), Origin(prompt=HOSTILE, prior='"><b>', seed=3, step=7))
    plain, _ = written(tmp_path / "b.html", make_cloud())
    # The same elements with the same attributes, whatever the prompt is.
    assert page.tags == plain.tags
    assert page.texts["title"] == HOSTILE
    assert page.scene["title"] == HOSTILE
    assert {'prior "><b>', "seed 3"} <= set(page.scene["facts"])
    assert page.texts["script"] == plain.texts["script"]


def test_a_prompt_that_is_no_valid_text_is_still_written(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "a.html", make_cloud(), Origin(prompt="a \udce9 robot"))
    assert page.texts["title"] == "a ? robot"


def test_the_page_can_load_nothing_and_runs_its_own_script_alone(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "a.html", make_cloud())
    [policy] = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    hashes = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(page.texts[name].encode()).digest()).decode()}'"
        for name in ("script", "style")
    }
    assert rules == {
        "default-src": "'none'",
        "script-src": hashes["script"],
        "style-src": hashes["style"],
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses == ["data:,"]
    # A style attribute would be blocked by the policy, with an error in the console.
    assert not any("style" in attributes for _, attributes in page.tags)


def test_the_first_view_is_that_of_the_run_s_cameras_in_the_file_s_unit(tmp_path: Path) -> None:
    cameras = CameraConfig(distance=(2.0, 3.0), fov_y_deg=(40.0, 60.0))
    page, _ = written(tmp_path / "a.html", make_cloud(), Origin(cameras=cameras, unit=4.0))
    assert page.scene["view"] == {"azimuth_deg": 0.0, "elevation_deg": 15.0, "distance": 10.0, "fov_y_deg": 50.0}


def test_a_cloud_of_unknown_cameras_is_seen_whole_wherever_it_lies(tmp_path: Path) -> None:
    cloud = make_cloud(400)
    far = SplatCloud(**(vars(cloud) | {"means": 50.0 * cloud.means + torch.tensor([1e4, -2e4, 3e4])}))
    page, _ = written(tmp_path / "a.html", far)
    view, means = page.scene["view"], decoded(page)["means"]
    distances = np.linalg.norm(means, axis=1)
    assert np.quantile(distances, 0.98) < view["distance"] * math.sin(math.radians(20.0)) < 1.5 * distances.max()
    assert np.linalg.norm(np.median(means, axis=0)) < 20.0


def test_bytes_per_splat_and_of_the_page_around_them(tmp_path: Path) -> None:
    for count, most in ((6000, 320_000), (12000, 600_000)):
        written(tmp_path / f"{count}.html", make_cloud(count))
        assert (tmp_path / f"{count}.html").stat().st_size < most


def test_more_splats_than_a_page_shows_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_SPLATS", 39)
    with pytest.raises(UserError, match="40 splats are more than the 39 of one page.*another format"):
        written(tmp_path / "a.html", make_cloud())
    assert not list(tmp_path.iterdir())


def test_an_existing_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        written(tmp_path / "a.html", make_cloud())
    assert (tmp_path / "a.html").read_text() == "mine"
