"""Several scenes in one evaluation: learned metrics on tiny networks, what failed, means, the manifest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_scorers import open_clip_state, transformers_clip, write_image_reward

from sdi_gs.errors import UserError
from sdi_gs.evaluation.aggregates import aggregates
from sdi_gs.evaluation.evaluate import Evaluation
from sdi_gs.evaluation.foreign_scenes import BlankScene
from sdi_gs.evaluation.many import Entry, Scored, Scoring, score_all
from sdi_gs.evaluation.metrics.table import METRICS, metric_named
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.evaluation.report import report_json, write_report
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.protocols import ViewOptions, protocol_with
from sdi_gs.settings.scoring import NetworkOptions
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.toybox import truth_renders

DOCS = Path(__file__).parents[2] / "docs/eval.md"
LEARNED = ("janus", "clip", "r-precision", "image-reward", "clip-iqa", "hps")
SMALL = protocol_with("orbit", ViewOptions(count=4, size=48))


def ball(colour: tuple[float, float, float]) -> SplatCloud:
    generator = torch.Generator().manual_seed(0)
    return SplatCloud(
        means=0.4 * torch.randn(200, 3, generator=generator),
        log_scales=torch.full((200, 3), -2.5),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(200, 1),
        opacity_logit=torch.full((200,), 2.0),
        sh_dc=torch.tensor(colour).repeat(200, 1),
        sh_rest=torch.zeros(200, 0, 3),
    )


def open_scene(path: Path) -> SavedScene:
    if path.name == "gone":
        raise UserError(f"{path} does not exist: give a run folder")
    colour = (1.5, -1.5, -1.5) if path.name.startswith("red") else (-1.5, -1.5, 1.5)
    return SavedScene(representation=gaussians_from_splats(ball(colour)), path=path, run=None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    folder = tmp_path_factory.mktemp("networks")
    clip = transformers_clip(folder / "clip")
    save_file(open_clip_state(), folder / "hps.safetensors")
    reward = write_image_reward(folder / "reward")
    options = NetworkOptions(
        clip=str(clip), clip_iqa=str(clip), hps=str(folder / "hps.safetensors"), image_reward=str(reward)
    )
    return Networks(options)


@pytest.fixture(scope="module")
def scoring(networks: Networks) -> Scoring:
    return Scoring(metrics=[metric_named(name) for name in LEARNED], protocol=SMALL, networks=networks)


ENTRIES = (
    Entry(path=Path("red-0"), prompt="a red thing", seed=0),
    Entry(path=Path("red-1"), prompt="a red thing", seed=1, failure="the loss is not finite"),
    Entry(path=Path("blue-0"), prompt="a blue thing", seed=0),
    Entry(path=Path("gone"), prompt="a blue thing", seed=1, may_fail=True),
)


@pytest.fixture(scope="module")
def scored(scoring: Scoring) -> list[Scored]:
    return score_all(ENTRIES, scoring, open_scene=open_scene)


def test_every_learned_metric_gives_the_documented_keys(networks: Networks) -> None:
    protocol = protocol_with("t3bench-quality", ViewOptions(size=16))
    scoring = Scoring(
        metrics=[metric_named(name) for name in LEARNED],
        protocol=protocol,
        networks=networks,
        prompts=("a green thing",),
    )
    [one] = score_all(ENTRIES[:1], scoring, open_scene=open_scene)
    [text] = re.findall(
        r"^## Keys of the learned metrics\n(.*?)(?=^## )", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    documented = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(documented) == sorted(one.evaluation.scores)
    rewards = one.evaluation.scores
    assert rewards["t3bench_quality"] > 50.0 + 20.0 * rewards["image_reward"]


def test_scores_are_means_of_the_networks_own(scored: list[Scored], networks: Networks) -> None:
    subject_scores = scored[0].evaluation.scores
    # One picture at a time, by the networks themselves.
    from sdi_gs.evaluation.extent import extent_of, matter_of
    from sdi_gs.evaluation.protocol_views import cameras_of, shown_views

    scene = open_scene(Path("red-0")).representation
    shown = shown_views(scene, cameras_of(SMALL, extent_of(scene, matter_of(scene))), SMALL)
    clip, texts = networks.clip("clip"), ["a red thing", "a blue thing"]
    cosines = torch.cat([clip.pictures(shown.rgb[i : i + 1]) for i in range(4)]) @ clip.texts(texts).T
    assert subject_scores["clip_cosine"] == pytest.approx(float(cosines[:, 0].mean()), abs=1e-6)
    assert subject_scores["clip_score"] == pytest.approx(max(100.0 * float(cosines[:, 0].mean()), 0.0), abs=1e-4)
    assert subject_scores["r_precision"] == float((cosines[:, 0] > cosines[:, 1]).float().mean())
    assert subject_scores["num_prompts"] == 2
    rewards = networks.image_reward().scores(shown.rgb, "a red thing")
    assert subject_scores["image_reward"] == pytest.approx(float(rewards.mean()), abs=1e-6)


def test_what_failed_is_a_blank_picture_and_stays_in_the_mean(scored: list[Scored], scoring: Scoring) -> None:
    assert [one.failure for one in scored][1] == "the loss is not finite"
    assert "does not exist" in str(scored[3].failure)
    nothing = SavedScene(representation=BlankScene(), path=Path("red-1"), run=None)
    blank = replace(scoring, metrics=[metric_named("clip")]).of(nothing, "a red thing").scores
    assert scored[1].evaluation.scores["clip_cosine"] == pytest.approx(blank["clip_cosine"], abs=1e-6)
    values = [one.evaluation.scores["hps"] for one in scored]
    found = aggregates(scored)["hps"]
    assert found.mean == pytest.approx((sum(values[:2]) / 2 + sum(values[2:]) / 2) / 2)
    assert found.mean_finished == pytest.approx((values[0] + values[2]) / 2)
    assert (found.num_prompts, found.num_scenes) == (2, 4)


def test_a_scene_that_was_asked_for_itself_must_open(scoring: Scoring) -> None:
    with pytest.raises(UserError, match="gone does not exist"):
        score_all([replace(ENTRIES[3], may_fail=False)], scoring, open_scene=open_scene)


def test_spreads_are_over_prompts_and_over_seeds() -> None:
    def one(prompt: str, value: float | bool | None, failure: str | None = None) -> Scored:
        evaluation = Evaluation(source=None, prompt=prompt, scores={"x": value, "name": "a"}, rows=(), instrument=None)
        return Scored(entry=Entry(path=Path("a")), evaluation=evaluation, seed=None, failure=failure)

    found = aggregates([one("a", 1.0), one("a", 3.0), one("b", 6.0), one("b", 6.0, "x"), one("c", None)])
    assert list(found) == ["x"]
    assert (found["x"].mean, found["x"].mean_finished) == (4.0, 4.0)
    assert found["x"].std_prompts == pytest.approx(2.0 * 2.0**0.5)
    assert found["x"].std_seeds == pytest.approx(1.0)
    assert aggregates([one("a", True), one("b", False)])["x"].mean == 0.5
    assert aggregates([one("a", 1.0)])["x"].std_prompts is aggregates([one("a", 1.0)])["x"].std_seeds is None


def test_the_report_makes_the_numbers_repeatable(scored: list[Scored], scoring: Scoring, tmp_path: Path) -> None:
    report: dict[str, Any] = report_json(scored, scoring, device="cpu")
    write_report(tmp_path / "scores", report)
    read = json.loads((tmp_path / "scores/eval.json").read_text())
    assert read == json.loads(json.dumps(report, allow_nan=False))
    lines = (tmp_path / "scores/eval.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read["scenes"]
    assert read["counts"] == {"scenes": 4, "failed": 2, "prompts": 2}
    manifest = read["manifest"]
    assert {"versions", "git", "machine", "metrics", "views", "truth", "networks", "seed", "scales"} <= manifest.keys()
    assert manifest["views"]["azimuths_deg"] == [0.0, 90.0, 180.0, 270.0]
    assert (manifest["views"]["size"], manifest["views"]["cameras"]) == (48, 4)
    roles = {record["role"]: record for record in manifest["networks"]}
    assert roles.keys() == {"clip", "clip-iqa", "hps", "image-reward"}
    assert all(len(digest) == 64 for record in roles.values() for digest in record["sha256"].values())
    with pytest.raises(UserError, match="scores"):
        write_report(tmp_path / "scores", report)


def test_metrics_without_networks_are_skipped_with_their_command(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    [one] = score_all(ENTRIES[:1], Scoring(protocol=SMALL), open_scene=open_scene)
    assert one.evaluation.skipped is not None
    assert one.evaluation.skipped.keys() == set(LEARNED)
    assert one.evaluation.skipped["hps"] == "no weights of hps-v2 here: sdi-gs priors fetch hps-v2"
    assert "add --prompts LIST" in one.evaluation.skipped["r-precision"]
    assert one.evaluation.left_out is not None
    with pytest.raises(UserError, match=r"metric clip: no weights of clip-b32 here"):
        score_all(ENTRIES[:1], Scoring(metrics=[metric_named("clip")]), open_scene=open_scene)


def test_a_blank_scene_has_scores_under_every_metric_without_networks(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    entry = Entry(path=Path("x"), prompt="a blue robot", failure="gone")
    scoring = Scoring(protocol=SMALL, num_draws=1, image_size=16)
    [one] = score_all([entry], scoring, open_scene=open_scene)
    scores = one.evaluation.scores
    assert (scores["iou_best"], scores["diverged_as"], scores["box_ratio"]) == (0.0, "empty", None)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert {metric.name for metric in METRICS} > set(one.evaluation.skipped or {})


def test_true_objects_are_rendered_for_the_first_scene_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = Scoring(metrics=[metric_named("truth")], num_draws=2, image_size=16)
    alone = [replace(scoring).of(open_scene(Path(name)), "a red ball") for name in ("red-0", "blue-0")]
    rendered, whole = [], truth_renders.render_truth
    monkeypatch.setattr(
        truth_renders, "render_truth", lambda items, cameras: rendered.append(len(items)) or whole(items, cameras)
    )
    counts = []
    for scene, expected in zip(("red-0", "blue-0"), alone, strict=True):
        [scored] = score_all([Entry(path=Path(scene), prompt="a red ball")], scoring, open_scene=open_scene)
        assert scored.evaluation.scores == expected.scores
        counts.append(len(rendered))
    both = score_all(
        [Entry(path=Path(scene), prompt="a red ball") for scene in ("red-0", "red-1")], scoring, open_scene=open_scene
    )
    # A scene that looks alike needs nothing that the first one did not.
    assert counts[0] > 0 and len(rendered) == counts[1] + counts[0]
    assert both[0].evaluation.scores == both[1].evaluation.scores
