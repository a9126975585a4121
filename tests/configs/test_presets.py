"""The named starting points."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sdi_gs.configs import presets as presets_module
from sdi_gs.configs.presets import Preset, preset, preset_for_prior, preset_named, presets
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import CATALOG
from sdi_gs.settings.ngp import NgpLossConfig
from sdi_gs.settings.representations import REPRESENTATIONS
from sdi_gs.settings.run import require_groups
from sdi_gs.settings.tree import differing_keys, with_values

README = Path(__file__).parents[2] / "README.md"
every_preset = pytest.mark.parametrize(("name", "preset"), presets().items(), ids=presets())


@every_preset
def test_a_preset_says_in_one_line_what_it_is_for(name: str, preset: Preset) -> None:
    assert 20 < len(preset.summary) < 120
    assert "\n" not in preset.summary


@every_preset
def test_a_preset_leaves_only_the_prompt_open(name: str, preset: Preset) -> None:
    assert preset.config.prompt == ""
    assert preset.config.prior in {entry.name for entry in CATALOG}


@every_preset
def test_a_preset_can_be_had_by_its_name(name: str, preset: Preset) -> None:
    assert preset_named(name) == preset


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match='unknown preset "nix"; known: toybox-ideal, toybox, smoke, sd21-base'):
        preset_named("nix")


@pytest.mark.parametrize(
    ("prior", "preset"),
    [
        ("toybox", "toybox"),
        ("toybox-ideal", "toybox-ideal"),
        ("sd21-base", "sd21-base"),
        ("sd21", "sd21"),
        ("sd15", "sd15"),
        # A preset of another prior.
        ("sd21-ngp", None),
        ("sdi-paper-ngp", None),
        # A preset of that name there is, a prior there is not.
        ("smoke", None),
    ],
)
def test_the_preset_of_a_prior_bears_its_name(prior: str, preset: str | None) -> None:
    assert preset_for_prior(prior) == preset


@every_preset
def test_every_representation_has_settings_that_differ_from_the_presets_in_what_is_written_down(
    name: str, preset: Preset
) -> None:
    assert preset.config_for(None) == preset.config_for(preset.config.representation) == preset.config
    for representation in REPRESENTATIONS:
        changed = differing_keys(preset.config, preset.config_for(representation))
        assert set(changed) <= {"representation", *preset.by_representation.get(representation, {})}


def test_settings_for_a_representation_lie_over_the_presets_and_below_those_that_are_given() -> None:
    for_field = {"steps": 123, "ngp.geometry_lr": 0.02}
    some = Preset(summary="", config=preset_named("smoke").config, by_representation={"ngp": for_field})
    assert some.config_for("ngp") == with_values(some.config, {"representation": "ngp", **for_field})
    with pytest.raises(UserError, match="representation is 'nix'; accepted: 'gaussians', 'ngp'"):
        some.config_for("nix")
    base = preset_named("toybox-ideal").config_for("ngp")
    assert preset("toybox-ideal", representation="ngp") == base
    assert preset("toybox-ideal", {"representation": "ngp", "steps": 7}) == with_values(base, {"steps": 7})


def test_toybox_presets_look_from_where_their_priors_look() -> None:
    # Renders from elsewhere are outside of what these priors know.
    for name in ("toybox-ideal", "toybox", "smoke"):
        cameras, prior = preset_named(name).config.cameras, preset_named(name).config.ideal_prior
        assert cameras.elevation_deg == prior.elevation_deg
        assert cameras.distance == (prior.distance, prior.distance)
        assert cameras.fov_y_deg == (prior.fov_y_deg, prior.fov_y_deg)


def test_only_the_preset_told_by_words_gathers_cameras_at_their_words() -> None:
    until = {name: entry.config.cameras.word_spread_until for name, entry in presets().items()}
    assert {name: share for name, share in until.items() if share} == {"toybox": 0.4}
    assert preset("toybox", representation="ngp").cameras.word_spread_until == 0.0


@pytest.mark.parametrize("name", ["toybox-ideal", "toybox"])
def test_a_fields_regularisers_weigh_a_tenth_on_pixels_and_keep_their_schedules(name: str) -> None:
    config, published = preset_named(name).config, preset_named("sd21-base").config.ngp.losses
    # The ideal prior's latents are pooled pixels.
    assert config.losses.space == "pixels" or config.prior == "toybox-ideal"
    toybox = config.ngp.losses
    numbers = {key: value for key, value in asdict(toybox).items() if isinstance(value, float)}
    ratios = {key: value / getattr(published, key) for key, value in numbers.items() if getattr(published, key)}
    schedules = {"sparsity_end": 1.0, "convexity_end": 1.0}
    assert ratios == pytest.approx(dict.fromkeys(ratios, 0.1) | schedules)


def test_a_field_under_the_network_keeps_targets_of_latents_with_the_published_weights() -> None:
    field = preset_named("toybox").config_for("ngp")
    assert field.losses.space == "latents"
    assert field.ngp.losses == NgpLossConfig()
    # Eight views in 550 steps are what Gaussians take; no field was run so.
    assert field.views_per_step * field.steps <= 600


def test_the_smoke_preset_is_the_same_method_with_smaller_numbers() -> None:
    smoke, full = preset_named("smoke").config, preset_named("toybox-ideal").config
    published = replace(full.guidance, noise="inversion", views="words", t_min=smoke.guidance.t_min)
    assert smoke.guidance == published
    assert smoke.losses == full.losses
    assert smoke.ngp == full.ngp
    assert smoke.steps < full.steps
    assert smoke.gaussians.num_initial < full.gaussians.num_initial


@pytest.mark.parametrize("name", ["sd21-base", "sd21", "sd15"])
def test_a_field_under_stable_diffusion_is_the_published_one_but_for_what_is_said(name: str) -> None:
    paper, own = preset_named("sdi-paper-ngp").config, preset_named(name).config_for("ngp")
    of_clouds = ("gaussians.", "densify.")
    differing = {key for key in differing_keys(paper, own) if not key.startswith(of_clouds)}
    assert differing - {"prior", "negative_prompt"} == {
        *("guidance.renoise", "guidance.inversion_guidance_scale", "ngp.losses.convexity_form"),
        *("render.sizes", "render.milestones"),
    }
    assert own.guidance.resolved_inversion_scale == paper.guidance.resolved_inversion_scale
    assert preset_named("sd21-ngp").config == preset_named("sd21-base").config_for("ngp")


def test_stable_diffusion_is_asked_in_the_convention_of_the_paper() -> None:
    guidance = preset_named("sd21-base").config.guidance
    assert guidance.guidance_scale == 7.5
    assert guidance.resolved_inversion_scale == -7.5
    assert guidance.inversion_eta == 0.3


@pytest.mark.parametrize("name", ["mvdream", "mvdream-sdi"])
def test_presets_of_four_views_run_in_groups_whatever_they_optimise(name: str) -> None:
    for representation in ("gaussians", "ngp"):
        config = preset(name, prompt="a corgi", representation=representation)
        require_groups("mvdream", 4, config)
        assert (config.prior, config.guidance.perp_neg) == ("mvdream", False)
        # Weights of Gaussians' own terms go with a distance of weight 1.
        assert config.losses.distillation == (4096.0 if representation == "ngp" else 1.0)
        assert config.render.sizes == ((64, 256) if representation == "ngp" else ())
    assert preset_for_prior("mvdream") == "mvdream"


def test_what_sdi_changes_under_four_views_is_named() -> None:
    published, own = preset_named("mvdream").config_for("gaussians"), preset_named("mvdream-sdi").config
    assert {key for key in differing_keys(published, own) if not key.startswith("ngp.")} == {
        *("steps", "guidance.noise", "guidance.guidance_scale", "guidance.annealing"),
        *("guidance.annealing_end", "guidance.t_min", "guidance.target_rescale"),
    }


def test_one_preset_is_made_without_the_others() -> None:
    presets_module._made.cache_clear()
    preset_named("smoke")
    assert presets_module._made.cache_info().currsize == 1
