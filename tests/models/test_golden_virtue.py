"""What the published VIRTUE code was seen to compute, in its SAM branch and in whole batches, computed again."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from mmembed import Embedder, Image, Item, Region
from mmembed.media.settings import MediaSettings
from mmembed.models.sam2.opening import open_sam
from mmembed.models.sam2.prompts import SamPrompt, box_prompt, sam_prompt
from mmembed.models.sequence import collate
from mmembed.models.settings import EmbedderSettings, LastToken, QwenVL, RawPrompt
from mmembed.models.settings.regions import Sam2Regions

GOLDEN = Path(__file__).parents[1] / "golden"
VIRTUE = GOLDEN / "virtue"
SAM = VIRTUE / "sam2_tiny/native"
BRANCH = json.loads((VIRTUE / "branch.json").read_text())["cases"]
EMBED = json.loads((VIRTUE / "embed.json").read_text())
TOLERANCE = 1e-5
CALLS = {"first": "emb_first", "later": "emb_second"}


@pytest.fixture(scope="module")
def open_virtue():
    """A model of the published weights, once for each choice; the pictures that SAM encodes are shared."""
    sam = open_sam(str(SAM))

    @cache
    def make(**choices):
        backbone = {name: choices.pop(name) for name in ("padding_side",) if name in choices}
        regions = Sam2Regions(**({"checkpoint": str(SAM), "legacy_pixels": True, "legacy_boxes": True} | choices))
        settings = EmbedderSettings(
            QwenVL(**({"path": str(GOLDEN / "vlm2vec/qwen2_vl"), "positions": "sequential"} | backbone)),
            RawPrompt(),
            LastToken(),
            regions=regions,
            regions_weights=str(VIRTUE / "connector.safetensors"),
        )
        model = Embedder(settings).eval()
        model.regions.sam = sam
        return model

    return make


def shown(name, *boxes):
    return Image(VIRTUE / f"images/{name}.png", tuple(Region(box=tuple(box)) for box in boxes))


def items_of(case):
    """The rows of a case; where its box is given in SAM's frame, in pixels of the picture instead."""
    boxes = case["prompt_passed_to_encoder"].get("bboxes", [None] * len(case["texts"]))
    in_frame = any(said.startswith("NOT legacy for the box") for said in case["legacy"])
    items = []
    for text, name, box in zip(case["texts"], case["images"], boxes, strict=True):
        if name is None:
            items.append(Item((text,)))
            continue
        image = shown(name, *([box] if box else []))
        if box and in_frame:
            with PIL.Image.open(image.source) as picture:
                width, height = picture.size
            sides = (width, height, width, height)
            image = shown(name, [value / 1024 * side for value, side in zip(box, sides, strict=True)])
        items.append(Item((image, text.removeprefix("<|image_pad|>"))))
    return items, in_frame


def embed(model, items):
    """All rows in one batch, as the published code embeds them."""
    with torch.no_grad():
        return model(collate(model.prepare(items, "query"))).numpy()


def distance(ours, theirs):
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def test_all_published_cases_are_found():
    assert len(BRANCH) == 8
    assert len(EMBED) == 11


@pytest.mark.parametrize("name", BRANCH)
def test_pixels_encoded_picture_keys_and_tokens_equal_the_published_ones(name, open_virtue):
    case, model = BRANCH[name], open_virtue(legacy_positions="later")
    batch = collate(model.prepare([Item((shown(image),)) for image in case["images"]], "query"))
    encoder = model.regions
    with torch.no_grad():
        pixels = [encoder._pixels(batch, i, model.backbone) for i in range(len(batch.media))]
        encoded = encoder.sam.encode(batch.media, pixels.__getitem__)
        keys = encoder.sam.keys(encoded, branch_prompts(case))
        tokens = encoder.connect(keys)

    with np.load(VIRTUE / "branch.npz") as arrays:
        ours = {
            "sam_pixels_s64": torch.stack(pixels)[:, :, ::64, ::64],
            "image_embed_s488": torch.stack([one.image for one in encoded])[:, ::4, ::8, ::8],
            "keys_s488": keys[:, ::4, ::8, ::8],
            "tokens": tokens,
            "tokens_s8": tokens[:, ::8],
        }
        known = {part: arrays[f"{name}/{part}"] for part in ours if f"{name}/{part}" in arrays.files}
    assert len(known) == 4
    assert {part: d for part, theirs in known.items() if (d := distance(ours[part], theirs)) > TOLERANCE} == {}


def branch_prompts(case):
    """One prompt for each picture; a single one is shared."""
    if "point" in case:
        prompts = [SamPrompt(((*case["point"], 1),))]
    else:
        prompts = [box_prompt(*box) for box in case.get("bboxes", [])] or [sam_prompt(None, 1024)]
    return prompts * (len(case["images"]) // len(prompts))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", EMBED)
def test_embeddings_of_a_batch_equal_the_published_ones(name, call, open_virtue, sped):
    items, in_frame = items_of(EMBED[name])
    side = "right" if name.endswith("rightpad") else "left"
    model = sped(open_virtue(legacy_positions=call, legacy_boxes=not in_frame, padding_side=side))

    ours = embed(model, items)

    assert distance(ours, published(name, call)) <= TOLERANCE


def published(name, call="later"):
    with np.load(VIRTUE / "embed.npz") as arrays:
        return arrays[f"{name}/{CALLS[call]}"]


@pytest.mark.parametrize("name", [name for name, case in EMBED.items() if len(case["texts"]) == 1])
def test_a_row_by_itself_is_embedded_as_by_later_calls(name, open_virtue):
    items, in_frame = items_of(EMBED[name])

    ours = embed(open_virtue(legacy_positions="single", legacy_boxes=not in_frame), items)

    assert distance(ours, published(name)) <= TOLERANCE


def test_rows_by_themselves_do_not_depend_on_the_rows_beside(open_virtue):
    model = open_virtue(legacy_positions="single")
    items = [item for name in ("scar_eval_box_origpx", "mixed_image_text") for item in items_of(EMBED[name])[0]]

    together, alone = embed(model, items), np.concatenate([embed(model, [item]) for item in items])

    assert distance(together, alone) <= TOLERANCE
    # a row of text among pictures is its own, and not the fillers' that the published code reads
    assert distance(together[3:], published("mixed_image_text")[1:]) > 0.01


def test_later_calls_depend_on_the_rows_beside_as_published(open_virtue):
    model = open_virtue(legacy_positions="later", padding_side="left")
    items, _ = items_of(EMBED["scar_eval_box_origpx"])

    assert distance(embed(model, items)[:1], embed(model, items[:1])) > 0.01


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A folder as the published conversion writes it: the whole model and the connector, both as torch's own files."""
    folder = tmp_path_factory.mktemp("virtue") / "VIRTUE-tiny-SCaR"
    shutil.copytree(GOLDEN / "vlm2vec/qwen2_vl", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    sam = {"enabled": True, "config_path": "sam2.1_hiera_b+.yaml", "checkpoint": "sam2.1_hiera_base_plus.pt"}
    (folder / "config.json").write_text(json.dumps(config | {"virtue_sam": sam | {"points_per_side": 3}}))
    parts = {"sam2_reducer": {}, "sam2vlm_layer": {}}
    for name, value in load_file(VIRTUE / "connector.safetensors").items():
        part, key = name.split(".", 1)
        parts[part][key] = value
    torch.save(parts, folder / "sam2_reducer_and_vlm_layer.pth")
    return folder


def open_released(repository, **overrides):
    regions = {"checkpoint": str(SAM)}
    return Embedder.from_pretrained(repository, profile="virtue", device="cpu", regions=regions, **overrides)


@pytest.mark.parametrize("name", ["image_text", "image_box_example_key", "scar_train_row1_alone", "text_only"])
def test_a_repository_opened_with_the_profile_embeds_as_published(name, repository):
    items, _ = items_of(EMBED[name])
    # these rows were made without the square that the published evaluation resizes pictures to
    model = open_released(repository, media=MediaSettings(alpha="drop"))

    assert distance(model.encode(items), published(name)) <= TOLERANCE


def test_the_profile_makes_pictures_square_and_leaves_boxes_in_pixels_of_the_original(repository):
    item = items_of(EMBED["scar_train_row1_alone"])[0][0]
    image = item.content[0]
    with PIL.Image.open(image.source) as picture:
        square = picture.convert("RGB").resize((1344, 1344))
    same = replace(item, content=(replace(image, source=square), *item.content[1:]))
    plain = open_released(repository, media=MediaSettings(alpha="drop"))
    model = open_released(repository)

    row = model.prepare([item], "query")[0]

    assert int((row.kinds == 3).sum()) == 35 * 35
    assert distance(model.encode([item]), plain.encode([same])) <= TOLERANCE


def test_a_released_model_saved_again_embeds_the_same(repository, tmp_path):
    items, _ = items_of(EMBED["scar_train_row1_alone"])
    model = open_released(repository, media=MediaSettings(alpha="drop"))
    model.save(tmp_path / "again")

    again = Embedder.from_pretrained(tmp_path / "again", device="cpu")

    assert torch.equal(again.encode(items), model.encode(items))
    assert set(load_file(tmp_path / "again/regions.safetensors")) == set(load_file(VIRTUE / "connector.safetensors"))
