"""The judge: what it makes of pictures, and how its verdicts are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toybox_training.examples import draw_examples
from toybox_training.judging import JudgeTrainingConfig, has_sides, spoilt_pictures

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.judge import JUDGE_FILE, Judge, Judgement, JudgeNetwork, load_judge
from sdi_gs.toybox.splits import split_seed

shipped = pytest.mark.skipif(not JUDGE_FILE.exists(), reason="the judge's weights are not there")


def verdict(names: list[str], colours: list[str], views: list[ViewWord]) -> Judgement:
    return Judgement(
        classes=torch.tensor([list(CLASSES).index(name) for name in names]),  # pyright: ignore[reportArgumentType]
        colours=torch.tensor([COLOUR_NAMES.index(colour) for colour in colours]),
        views=torch.tensor([VIEW_WORDS.index(view) for view in views]),
    )


def test_shares_are_counted_over_all_pictures() -> None:
    said = verdict(["car", "car", "mug"], ["red", "blue", "red"], ["front view", "side view", "side view"])
    assert said.class_accuracy("car") == pytest.approx(2 / 3)
    assert said.colour_accuracy("red") == pytest.approx(2 / 3)
    assert said.view_accuracy("car", ["front view", "back view", "side view"]) == pytest.approx(2 / 3)


def test_an_object_whose_sides_only_light_tells_apart_has_no_right_view() -> None:
    said = verdict(["ball"], ["red"], ["front view"])
    assert said.view_accuracy("ball", ["front view"]) is None


class Told(Judge):
    """Says what it was told to say."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(JudgeNetwork())
        self.judgement = judgement

    def __call__(self, images: torch.Tensor) -> Judgement:
        return self.judgement


def test_a_face_on_the_back_counts_as_janus() -> None:
    words: list[ViewWord] = ["front view", "side view", "back view", "back view"]
    said = verdict(["robot"] * 4, ["blue"] * 4, ["front view", "side view", "front view", "back view"])
    score = Told(said).score(torch.zeros(4, 64, 64, 3), words, ToyboxPrompt(class_name="robot", colour="blue"))
    assert (score.judge_class, score.judge_colour, score.judge_view) == (1.0, 1.0, 0.75)
    assert score.judge_back_as_front == 0.5


def test_what_the_prompt_leaves_open_is_not_scored() -> None:
    said = verdict(["ball"], ["red"], ["back view"])
    score = Told(said).score(torch.zeros(1, 64, 64, 3), ["back view"], ToyboxPrompt(class_name="ball"))
    assert score.judge_colour is score.judge_view is score.judge_back_as_front is None
    with pytest.raises(ValueError, match="without an object"):
        Told(said).score(torch.zeros(1, 64, 64, 3), ["back view"], ToyboxPrompt(colour="red"))


def test_larger_pictures_are_brought_to_the_size_that_the_network_knows() -> None:
    seen = []

    class Recording(JudgeNetwork):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            seen.append(images)
            return super().forward(images)

    # A ramp is the same at every size.
    ramp = ((torch.arange(128) + 0.5) / 128)[None, None, :, None].expand(2, 128, 128, 3)
    Judge(Recording())(ramp)
    expected = ((torch.arange(64) + 0.5) / 64)[None, None, None, :].expand(2, 3, 64, 64)
    # The border has no neighbours to average with.
    torch.testing.assert_close(seen[0][..., 1:-1], expected[..., 1:-1])


def test_weights_are_read_from_half_precision(tmp_path: Path) -> None:
    network = JudgeNetwork()
    halves = {name: value.half() for name, value in network.state_dict().items()}
    save_file(halves, tmp_path / "judge.safetensors")
    network.load_state_dict({name: value.float() for name, value in halves.items()})
    images = torch.rand(3, 64, 64, 3)
    assert torch.equal(load_judge(tmp_path / "judge.safetensors")(images).classes, Judge(network)(images).classes)


def test_missing_and_broken_weights_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not at"):
        load_judge(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(UserError, match="broken"):
        load_judge(broken)
    save_file({"heads.bias": torch.zeros(3)}, broken)
    with pytest.raises(UserError, match="broken"):
        load_judge(broken)


@pytest.mark.slow
@shipped
def test_the_judge_that_is_shipped_keeps_its_bars_on_held_out_renders() -> None:
    config = JudgeTrainingConfig()
    examples = draw_examples(config.examples, 768, split_seed("val", 7))
    plain, _ = examples.render()
    said, sided = load_judge()(plain.permute(0, 2, 3, 1)), has_sides(examples)
    assert (said.classes == examples.classes).float().mean() >= 0.97
    assert (said.colours == examples.colours).float().mean() >= 0.97
    assert (said.views == examples.views)[sided].float().mean() >= 0.90


def test_spoilt_pictures_keep_their_shape_range_and_share_of_plain_ones() -> None:
    config = JudgeTrainingConfig()
    examples = draw_examples(config.examples, 64, split_seed("val", 8))
    plain, _ = examples.render()
    spoilt = spoilt_pictures(examples, config, torch.Generator().manual_seed(0))
    assert spoilt.shape == plain.shape
    assert spoilt.amin() >= 0.0
    assert spoilt.amax() <= 1.0
    kept = (spoilt - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 0.1 < kept.float().mean().item() < 0.4
    assert (spoilt - plain)[~kept].abs().mean() > 0.01
