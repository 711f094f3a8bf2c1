"""VIRTUE's encoder without the faults of the released code: tokens behind their picture, in SAM 2's coordinates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmembed import Embedder, Image, Item, Page, Region, Video
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from mmembed.models.identity import identity
from mmembed.models.prompts import Kind
from mmembed.models.sam2.opening import scratch_sam
from mmembed.models.sam2.predict import has_sam, predict_masks
from mmembed.models.sequence import KEPT_FREE, collate
from mmembed.models.settings import RawPrompt
from mmembed.models.settings.regions import Sam2Regions, Sam2Scratch, TextRegions
from mmembed.training.grad_cache import cached_gradients
from tests.cases import WORDS, draw, small_embedder
from tests.families import family_settings

SCRATCH = Sam2Regions(scratch=Sam2Scratch())
TOKENS = 16
PICTURE = draw(90, 60)
MASK = np.zeros((60, 90), dtype=bool)
MASK[10:30, 20:70] = True
REGIONS = {
    "box": Region(box=(9, 12, 45, 54)),
    "another box": Region(box=(40, 12, 80, 54)),
    "point": Region(points=((45, 30, 1),)),
    "points": Region(points=((45, 30, 1), (60, 30, 1))),
    "a point outside": Region(points=((45, 30, 1), (60, 30, 0))),
    "mask": Region(mask=MASK),
}


def shown(*regions, picture=PICTURE):
    return Image(picture, tuple(REGIONS[region] for region in regions))


def asked(*regions, text="what is here"):
    return Item((shown(*regions), text))


@pytest.fixture(scope="module")
def model():
    return small_embedder(regions=SCRATCH, prompt=RawPrompt()).eval()


@pytest.fixture
def fresh():
    return small_embedder(regions=SCRATCH, prompt=RawPrompt()).eval()


def kinds(model, item):
    return [Kind(int(kind)) for kind in model.prepare([item], "query")[0].kinds]


def test_each_region_has_its_tokens_right_behind_the_picture(model):
    row = model.prepare([asked("box", "mask")], "query")[0]
    free = row.ids == KEPT_FREE
    told = kinds(model, asked("box", "mask"))

    assert int(free.sum()) == 2 * TOKENS
    assert told.index(Kind.REGION) == told.count(Kind.IMAGE)
    assert told[told.index(Kind.REGION) :][: 2 * TOKENS] == [Kind.REGION] * 2 * TOKENS
    assert row.positions[0].tolist() == sorted(row.positions[0].tolist())


def test_a_picture_and_a_page_without_a_region_have_the_tokens_of_the_grid_and_a_clip_has_none(model, tmp_path):
    draw(60, 80).save(tmp_path / "a.pdf")
    page = Page(tmp_path / "a.pdf")
    clip = Video((draw(56, 56), draw(56, 56, 1)))

    assert kinds(model, asked()).count(Kind.REGION) == TOKENS
    assert kinds(model, Item((page,))).count(Kind.REGION) == TOKENS
    assert kinds(model, Item((clip,))).count(Kind.REGION) == 0
    assert kinds(model, Item(("words",))).count(Kind.REGION) == 0
    assert model.encode([Item((page,)), Item((clip,)), Item(("words",))]).isfinite().all()


def test_every_kind_of_region_moves_the_embedding(model):
    vectors = model.encode([asked(), *(asked(name) for name in REGIONS)])

    apart = torch.cdist(vectors, vectors)
    assert apart[~torch.eye(len(vectors), dtype=torch.bool)].min() > 1e-4


def test_identical_calls_give_identical_vectors(model):
    items = [asked("box"), asked("point"), asked(), Item(("words",))]

    assert torch.equal(model.encode(items), model.encode(items))


def test_a_mixed_batch_gives_the_vectors_of_its_items_one_by_one(model):
    items = [asked(name) for name in REGIONS] + [
        asked(),
        asked("box", "point"),
        Item((shown("box"), "and", shown(picture=draw(60, 90)), "differ")),
        Item((Video((draw(56, 56), draw(56, 56, 1))), "a clip")),
        Item(("a much longer text about a red circle and a blue one",)),
    ]
    with torch.no_grad():
        together = model(collate(model.prepare(items, "query")))
        alone = torch.cat([model(collate(model.prepare([item], "query"))) for item in items])

    assert (together - alone).abs().max() <= 1e-5


def test_a_region_moves_with_its_picture_whatever_the_pictures_size(model):
    """A box in shares of the sides is what SAM 2 is asked."""
    large = PICTURE.resize((180, 120))
    boxes = ((PICTURE, (9, 12, 45, 54)), (large, (18, 24, 90, 108)))
    items = [Item((Image(picture, (Region(box=box),)),)) for picture, box in boxes]
    slots = [row.regions[0].prompt for row in model.prepare(items, "query")]

    assert model.regions.prompt(slots[0]) == model.regions.prompt(slots[1])


def test_a_picture_is_encoded_once_for_all_its_prompts_and_batches(fresh):
    with counting() as work:
        fresh.encode([asked("box"), asked("another box"), asked(), asked("box", "mask")])
        fresh.encode([asked("points")])
    assert work["sam_images"] == 1
    assert work["sam_prompts"] == 6


def test_the_connector_trains_and_sam_does_not(fresh):
    fresh.train()
    vectors = fresh(collate(fresh.prepare([asked("box"), asked()], "query")))
    (vectors * torch.randn(vectors.shape)).sum().backward()

    trains = {name for name, p in fresh.regions.named_parameters() if p.requires_grad}
    assert trains == {f"sam2_reducer.{n}" for n in ("weight", "bias")} | {
        f"sam2vlm_layer.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")
    }
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fresh.regions.parameters() if p.requires_grad)
    assert {name for name in fresh.trainable if name.startswith("regions.")} == {f"regions.{name}" for name in trains}
    assert not fresh.regions.sam.training


def test_cached_gradients_are_those_of_the_whole_batch_and_encode_no_picture_again(fresh):
    rows = fresh.prepare([asked("box"), asked("mask"), asked(), Item(("words",))], "query")
    weight = torch.randn(len(rows), fresh.width)

    def gradients(chunks):
        fresh.zero_grad()
        cached_gradients(lambda chunk: {"v": fresh(collate(chunk))}, chunks, lambda rep: (rep["v"] * weight).sum())
        return [p.grad.clone() for p in fresh.regions.parameters() if p.requires_grad]

    with counting() as work:
        whole, cut = gradients([rows]), gradients([rows[:1], rows[1:3], rows[3:]])

    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(whole, cut, strict=True))
    assert work["sam_images"] == 1


def test_a_scratch_sam_is_saved_along(fresh, tmp_path):
    with torch.no_grad():
        fresh.regions.sam.model.no_memory_embedding.add_(0.5)
    items = [asked("box"), asked()]
    vectors = fresh.encode(items)
    fresh.save(tmp_path / "model")

    again = Embedder.from_pretrained(tmp_path / "model", device="cpu")

    assert torch.equal(again.encode(items), vectors)
    assert identity(again) == identity(fresh)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam") / "sam"
    scratch_sam(Sam2Scratch(seed=3)).model.save_pretrained(folder)
    return folder


def test_a_sam_of_a_checkpoint_is_named_and_not_saved(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    model = small_embedder(regions=Sam2Regions(checkpoint="sam"), prompt=RawPrompt()).eval()
    vectors = model.encode([asked("box")])
    model.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    again = Embedder.from_pretrained(tmp_path / "model", device="cpu")

    assert all(name.startswith("sam2") for name in load_file(tmp_path / "model/regions.safetensors"))
    assert again.settings.regions.checkpoint == str(checkpoint)
    assert torch.equal(again.encode([asked("box")]), vectors)


def test_where_a_sam_is_opened_from_is_no_part_of_an_identity(checkpoint, tmp_path):
    small_embedder(regions=Sam2Regions(checkpoint=str(checkpoint)), prompt=RawPrompt()).save(tmp_path / "model")
    scratch_sam(Sam2Scratch(seed=3)).model.save_pretrained(tmp_path / "copy")
    scratch_sam(Sam2Scratch(seed=4)).model.save_pretrained(tmp_path / "other")
    opened = [
        Embedder.from_pretrained(tmp_path / "model", device="cpu", regions={"checkpoint": str(place)})
        for place in (checkpoint, tmp_path / "copy", tmp_path / "other")
    ]
    parts = [identity(model) for model in opened]

    assert parts[0] == parts[1]
    assert {name for name in parts[0] if parts[0][name] != parts[2][name]} == {"weights"}


def test_settings_of_the_region_encoder_may_be_changed_on_opening(fresh, tmp_path):
    fresh.save(tmp_path / "model")

    again = Embedder.from_pretrained(tmp_path / "model", device="cpu", regions={"grid": 2})

    assert again.settings.regions == replace(SCRATCH, grid=2)
    assert not torch.equal(again.encode([asked()]), fresh.encode([asked()]))
    with pytest.raises(InputError, match=r"from_pretrained: regions: expected a known setting, got 'gird'; .*grid"):
        Embedder.from_pretrained(tmp_path / "model", device="cpu", regions={"gird": 2})


def test_settings_of_a_region_encoder_that_is_not_there_are_refused(tmp_path):
    small_embedder().save(tmp_path / "model")

    with pytest.raises(InputError, match="expected a model with a region encoder, got one without"):
        Embedder.from_pretrained(tmp_path / "model", device="cpu", regions={"grid": 2})


def test_a_connector_that_was_never_trained_is_refused(fresh, tmp_path):
    fresh.save(tmp_path / "model")
    said = tmp_path / "model/embedder.yaml"
    said.write_text(said.read_text().replace("regions_weights: ./regions.safetensors", "regions_weights: null"))

    with pytest.raises(InputError, match=r"the region encoder's trained weights, regions\.safetensors"):
        Embedder.from_pretrained(tmp_path / "model", device="cpu")


@pytest.mark.parametrize(
    ("regions", "got"),
    [(["mask"], "a mask"), (["points"], "2 points"), (["box", "point"], "2 regions")],
)
def test_what_the_released_code_cannot_be_prompted_with_is_refused(regions, got):
    model = small_embedder(regions=replace(SCRATCH, legacy_prompts=True), prompt=RawPrompt())

    with pytest.raises(InputError, match=f"regions: expected one box or one point inside, .* got {got}; set legacy_p"):
        model.prepare([asked(*regions)], "query")


def test_a_single_point_outside_is_no_prompt_of_the_released_code_either():
    model = small_embedder(regions=replace(SCRATCH, legacy_prompts=True), prompt=RawPrompt())

    with pytest.raises(InputError, match="got a point outside"):
        model.prepare([Item((Image(PICTURE, (Region(points=((1, 1, 0),)),)),))], "query")
    assert len(model.prepare([asked("point"), asked("box"), asked()], "query")) == 3


@pytest.mark.parametrize("legacy", [{"legacy_pixels": True}, {"legacy_positions": "single"}])
def test_the_released_codes_faults_are_refused_for_a_backbone_that_it_does_not_know(legacy):
    settings = replace(family_settings("llava"), regions=replace(SCRATCH, **legacy))

    with pytest.raises(InputError, match=r"expected a backbone of model type qwen2_vl, .* got llava"):
        Embedder(settings, texts=WORDS)


@pytest.mark.parametrize("call", ["first", "later"])
def test_several_pictures_in_a_row_are_refused_where_the_released_code_stops(call):
    model = small_embedder(regions=replace(SCRATCH, legacy_positions=call), prompt=RawPrompt()).eval()
    item = Item((shown(), shown(picture=draw(60, 60))))

    with pytest.raises(InputError, match=r"one picture with one region an item, .* legacy_positions: single"):
        model.encode([item])


def test_every_family_with_a_language_model_takes_the_tokens():
    for name in ("llava", "phi3_v", "mllama"):
        settings = replace(family_settings(name), regions=SCRATCH)
        model = Embedder(settings, texts=WORDS).eval()

        vectors = model.encode([asked("box"), asked("another box")])

        assert (vectors[0] - vectors[1]).abs().max() > 1e-5


def test_a_mask_is_predicted_for_each_region_and_a_second_click_encodes_nothing(fresh):
    with counting() as work:
        found = predict_masks(fresh, shown("point", "box"))
        assert work["sam_images"] == 1
        predict_masks(fresh, shown("a point outside"))
        fresh.encode([asked("a point outside")])
    assert work["sam_images"] == 1
    assert [one.mask.shape for one in found] == [(60, 90)] * 2


def test_the_mask_of_a_region_that_leaves_its_picture_is_refused(fresh):
    with pytest.raises(InputError, match="expected a box inside the picture of 90 x 60 pixels"):
        predict_masks(fresh, Image(PICTURE, (Region(box=(0, 0, 90, 100)),)))


def test_masks_are_of_the_pictures_own_size_where_pictures_are_made_square(tmp_path):
    regions = replace(SCRATCH, legacy_pixels=True)
    model = small_embedder(regions=regions, prompt=RawPrompt(), media=MediaSettings(square=64)).eval()

    assert predict_masks(model, shown("point"))[0].mask.shape == (60, 90)


@pytest.mark.parametrize("regions", [None, TextRegions()])
def test_a_model_without_a_sam_says_so(regions):
    model = small_embedder(regions=regions)

    assert not has_sam(model)
    with pytest.raises(InputError, match="expected a region encoder with a SAM 2"):
        predict_masks(model, shown("point"))
