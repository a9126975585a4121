"""The forgeries are what their names say."""

from __future__ import annotations

import score_forgeries
import torch
from score_forgeries import blurred, patch_forgeries, scored, shifted, table, with_needles

from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.truth import render_truth


def test_blur_spreads_a_point_by_sigma_and_keeps_flat_images() -> None:
    point = torch.zeros(1, 31, 31, 3)
    point[:, 15, 15] = 1.0
    spread = blurred(point, 2.0)[0, ..., 0]
    columns = torch.arange(31.0) - 15.0
    assert abs(float(spread.sum()) - 1.0) < 1e-5
    assert abs(float((spread.sum(dim=0) * columns**2).sum()) - 4.0) < 0.1
    torch.testing.assert_close(blurred(torch.full((1, 9, 9, 3), 0.3), 1.0), torch.full((1, 9, 9, 3), 0.3))


def test_a_shift_by_a_whole_pixel_is_a_roll() -> None:
    item = canonical_object("ball", "red")
    there, here = render_truth([item], shifted(1.0)), render_truth([item], score_forgeries.CAMERAS)
    torch.testing.assert_close(there.rgb[:, :, 1:], here.rgb[:, :, :-1], atol=1e-4, rtol=0.0)


def test_needles_are_drawn_from_the_visible_ones() -> None:
    count = 40
    opacities = torch.where(torch.arange(count) < 20, 2.0, -2.0)
    gaussians = Gaussians(
        {
            "means": torch.zeros(count, 3),
            "scales": torch.full((count, 3), -3.0),
            "quats": torch.ones(count, 4),
            "opacities": opacities,
            "sh0": torch.zeros(count, 1, 3),
        }
    )
    changed = (with_needles(gaussians, 7).params["scales"] != gaussians.params["scales"]).any(dim=1)
    assert int(changed.sum()) == 7
    assert not changed[20:].any()


def test_the_table_has_a_line_per_forgery_and_a_member_of_one_shade_is_found_out() -> None:
    forged = patch_forgeries(canonical_object("chair", "red", "patchwork"))[:2]
    rows = scored(forged, ToyboxPrompt(class_name="chair", colour="red", style="patchwork"))
    lines = table(rows, ("psnr_best", "detail", "patch_changes")).splitlines()
    assert lines[0] == "| images | `psnr_best` | `detail` | `patch_changes` |"
    assert lines[2].startswith("| a member | 100.0 | 1.00 | 0.")
    assert lines[3] == "| the member that is light all over | 100.0 | 1.00 | 0.00 |"
