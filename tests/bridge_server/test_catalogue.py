from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from bridge_server import catalogue, config
from bridge_server.catalogue import SHIPPED, Catalogue, Family, Role
from fresco.errors import InvalidInput
from fresco.samplers import SAMPLERS


def own(text: str) -> Catalogue:
    """The catalogue with `text` as the user's."""
    settings = config.load()
    settings.catalogue_file.parent.mkdir(parents=True, exist_ok=True)
    settings.catalogue_file.write_text(text, encoding="utf-8")
    return catalogue.load(settings)


@pytest.fixture
def shipped() -> Catalogue:
    return catalogue.load(config.load())


def test_the_shipped_catalogue_has_what_a_first_run_needs(shipped: Catalogue) -> None:
    kinds = {(entry.role, entry.family, entry.control) for entry in shipped.values()}
    sd15 = Family.SD15
    for control in ("canny", "softedge", "lineart", "depth", "tile"):
        assert (Role.CONTROLNET, sd15, control) in kinds
    for control in ("softedge", "lineart", "depth"):
        assert (Role.ANNOTATOR, None, control) in kinds
    for role in (Role.BASE, Role.VAE, Role.PREVIEW, Role.LORA, Role.IP_ADAPTER):
        assert (role, sd15, "") in kinds
    assert (Role.BASE, Family.SDXL, "") in kinds
    assert shipped["fresco-draft"].bundled


def test_the_shipped_catalogue_states_terms_and_sizes_and_no_hash(shipped: Catalogue) -> None:
    for entry in shipped.values():
        assert entry.licence is not None, entry.name
        assert entry.licence.url.startswith("https://"), entry.name
        assert entry.size > 0 or entry.bundled, entry.name
        assert "openrail" not in entry.licence.id or entry.licence.accept, entry.name
        if vae := entry.recommended.vae:
            assert shipped[vae].role is Role.VAE
            assert shipped[vae].family is entry.family
        if sampler := entry.recommended.sampler:
            assert sampler in SAMPLERS
    fields = {key for table in tomlkit.parse(SHIPPED.read_text()).values() for key in table}
    assert not {"sha256", "hash", "commit"} & fields


def test_only_annotators_have_pickles(shipped: Catalogue) -> None:
    pickled = {entry.name for entry in shipped.values() if any(".pt" in f for f in entry.files)}
    assert pickled == {"annotator-hed", "annotator-lineart"}


def test_a_model_of_the_users_own_and_one_changed() -> None:
    known = own(
        """
        [my-look]
        path = "looks/my.safetensors"
        role = "lora"

        [sd15]
        recommended = { steps = 12 }
        """
    )
    assert known["my-look"].path == "looks/my.safetensors"
    assert known["my-look"].title == "my-look"
    changed, settings = known["sd15"], known["sd15"].recommended
    assert (settings.steps, settings.guidance) == (12, 7.5)
    assert changed.repository == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_another_place_leaves_nothing_of_the_old_ones_terms() -> None:
    known = own('[sd15]\npath = "/models/mine"\n')
    assert (known["sd15"].repository, known["sd15"].licence, known["sd15"].size) == ("", None, 0)
    assert known["sd15"].family is Family.SD15
    moved = own('[sdxl]\nrepository = "me/mine"\n')["sdxl"]
    assert (moved.repository, moved.files, moved.licence) == ("me/mine", (), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[x]\nrole = 1", r"models\.toml, \[x\], role: 1 cannot be; write"),
        ('[x]\npath = "a.safetensors"', r"\[x\], role: is missing; use one of base, vae"),
        ('[x]\nrole = "hat"\npath = "a"', r"\[x\], role: 'hat' is unknown; use one of base"),
        ('[x]\nrole = "lora"', "either repository or path"),
        ('[x]\nrole = "lora"\npath = "a"\nrepository = "a/b"', "either repository or path"),
        ('[x]\nrole = "lora"\nrepository = "https://h/a/b"', '"owner/name"'),
        ('[x]\nrole = "lora"\npath = "a"\nsteps = 4', "no field 'steps'; use title, role"),
        ('[x]\nrole = "lora"\npath = "a"\nbundled = 1', "bundled: 1 cannot be; write true"),
        ('[x]\nrole = "lora"\npath = "a"\nsize_mb = true', "size_mb: True cannot be"),
        ('[x]\nrole = "lora"\npath = "a"\nfamily = "sd3"', "'sd3' is unknown; use one of sd15"),
        ('[x]\nrole = "lora"\npath = "a"\nfiles = [1]', "1 is no path"),
        ('[x]\nrole = "lora"\npath = "a"\naccept_licence = true', "name the licence"),
        ('[x]\nrole = "controlnet"\npath = "a"', "control: is missing; use one of canny"),
        ('[x]\nrole = "controlnet"\npath = "a"\ncontrol = "cany"', "'cany' is unknown"),
        ('[x]\nrole = "lora"\npath = "a.PT"', r"a\.PT is a pickle"),
        ('[x]\nrole = "vae"\nrepository = "a/b"\nfiles = ["v.ckpt"]', r"v\.ckpt is a pickle"),
        ('[x]\nrole = "vae"\npath = "a"\n[x.recommended]\nsteps = 2.5', "steps: 2.5 cannot be"),
        ('[x]\nrole = "vae"\npath = "a"\n[x.recommended]\nspeed = 2', "no field 'speed'"),
        ('[sd15.recommended]\ncontrols = "tile"', "controls: 'tile' cannot be; write"),
        ('[sd15.recommended]\ncontrols = ["tile:a"]', "'tile:a' cannot be; write a kind and how"),
        ("[control-canny.recommended]\ncanny = [200, 100]", r"\[200, 100\] cannot be"),
        ('[control-canny.recommended]\ncanny = [50, "x"]', r"canny: .* cannot be; write \[lower"),
        ('["Mine Own"]\nrole = "vae"\npath = "a"', "a name is lower-case"),
        ("x = 1", r"\[x\]: must be a table"),
        ("[x", r"models\.toml is not TOML.*line 1"),
    ],
)
def test_mistakes_are_named_with_file_entry_and_remedy(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        own(text)


def test_ids_of_the_hub_need_no_entry(shipped: Catalogue) -> None:
    entry = shipped.find("painter/styles:a/look.safetensors", Role.LORA)
    assert (entry.repository, entry.files) == ("painter/styles", ("a/look.safetensors",))
    assert entry.role is Role.LORA
    assert shipped.find("painter/styles").files == ()
    with pytest.raises(InvalidInput, match="is a pickle"):
        shipped.find("painter/styles:look.pt", Role.LORA)


def test_the_id_of_a_known_model_is_that_model(shipped: Catalogue) -> None:
    assert shipped.find("madebyollin/taesd").name == "taesd"
    both = shipped.find("lllyasviel/Annotators", Role.ANNOTATOR)
    assert both.name == "lllyasviel/Annotators", "two entries share it: neither is meant"


@pytest.mark.parametrize(
    "name", ["sd-15", "a/b/c", "../b", "a b/c", "https://h/a", "a/b:", "", "-/-"]
)
def test_what_is_no_model(shipped: Catalogue, name: str) -> None:
    with pytest.raises(InvalidInput, match="models list"):
        shipped.find(name)


def test_a_model_for_something_else(shipped: Catalogue) -> None:
    with pytest.raises(InvalidInput, match="sd15 is a model for base, and one for lora is needed"):
        shipped.find("sd15", Role.LORA)


def test_no_catalogue_of_the_users_is_no_error(shipped: Catalogue, tmp_path: Path) -> None:
    assert not config.load().catalogue_file.exists()
    assert len(shipped) == len(list(shipped)) >= 20
