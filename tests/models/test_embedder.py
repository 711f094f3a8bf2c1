"""The Embedder: vectors that depend on nothing but their item, saving and opening."""

import random
from dataclasses import replace

import PIL.Image
import pytest
import torch
import yaml
from transformers import AutoModel

from mmembed import Embedder, Image, Item, Page
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.media.pages import render_page
from mmembed.media.settings import MediaSettings
from mmembed.models.attention import SEGMENTS
from mmembed.models.settings import (
    ChatPrompt,
    EmbedderSettings,
    Lora,
    MeanToken,
    QwenVL,
    RawPrompt,
    Scratch,
    TextRegions,
)

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedding_does_not_depend_on_its_batch(family, mixed_items, scratch_embedder):
    embedder = scratch_embedder(family)
    alone = torch.cat([embedder.encode([item], batch_tokens=1) for item in mixed_items])
    order = random.Random(0).sample(range(len(mixed_items)), len(mixed_items))

    for batch_tokens in (1, 90, 200, 10**6):
        together = embedder.encode(mixed_items, batch_tokens=batch_tokens)
        shuffled = embedder.encode([mixed_items[i] for i in order], batch_tokens=batch_tokens)
        assert torch.allclose(together, alone, atol=1e-5, rtol=0)
        assert torch.allclose(shuffled, alone[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedding_does_not_depend_on_the_padding_side(family, mixed_items, scratch_embedder):
    right = scratch_embedder(family).encode(mixed_items)
    left = scratch_embedder(family, padding_side="left").encode(mixed_items)

    assert torch.allclose(left, right, atol=1e-5, rtol=0)


def test_a_literal_image_token_beside_an_image_is_an_ordinary_token(picture, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl", prompt=RawPrompt())
    literal = Item.of("what does <|image_pad|> mean?")
    image = Item.of({"image": picture(56, 56), "text": "and <|video_pad|> or <|image_pad|>?"})

    together = embedder.encode([literal, image])

    alone = torch.cat([embedder.encode([literal]), embedder.encode([image])])
    token = embedder.backbone.preprocessor.geometry.image_id
    assert embedder.prepare([literal], "query")[0].ids.tolist().count(token) == 1
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)


def test_equal_items_are_encoded_once_and_equal_pictures_pass_the_tower_once(picture, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")
    items = ["x", {"image": picture(56, 56)}, "x", {"image": picture(56, 56), "text": "y"}, "x"]

    with counting() as work:
        vectors = embedder.encode(items)

    assert work["language_rows"] == 3
    assert work["tower_forwards"] == 1
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[0], vectors[4])


def test_no_more_than_a_fifth_of_what_is_computed_is_padding(scratch_embedder):
    items = ["x", "a red circle " * 20, "y", "a blue circle " * 20, "a red circle " * 18]

    with counting() as work:
        scratch_embedder("qwen2_vl").encode(items, batch_tokens=10**6)

    assert work["language_rows"] == 5
    assert work["language_tokens"] < work["padded_tokens"] <= work["language_tokens"] / 0.8


def test_a_picture_in_rows_of_different_length_passes_the_tower_once(picture, scratch_embedder):
    shown = picture(56, 56)
    items = [Item((shown_again, "word " * 20 * i)) for i, shown_again in enumerate([Image(shown)] * 3)]

    with counting() as work:
        scratch_embedder("qwen2_vl").encode(items, batch_tokens=40)

    assert work["tower_forwards"] == 1
    assert work["language_rows"] == 3


def test_no_items_give_no_rows_of_the_right_width(scratch_embedder):
    assert scratch_embedder("qwen2_vl").encode([]).shape == (0, 64)


def test_one_item_of_any_form_gives_one_row(picture, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")

    assert embedder.encode("x").shape == (1, 64)
    assert embedder.encode(picture(56, 56)).shape == (1, 64)
    assert embedder.encode({"text": "x"}).shape == (1, 64)
    assert torch.equal(embedder.encode(Item.of("x")), embedder.encode(["x"]))


def test_a_page_embeds_as_the_picture_drawn_from_it(tmp_path, picture, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")
    picture(56, 84).save(tmp_path / "a.pdf", save_all=True, append_images=[picture(84, 56)])
    second = Page(tmp_path / "a.pdf", page=2, dpi=72)

    vectors = embedder.encode([{"pdf": tmp_path / "a.pdf", "page": 2, "dpi": 72}, render_page(second, MediaSettings())])

    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], embedder.encode({"pdf": tmp_path / "a.pdf", "dpi": 72})[0], atol=1e-3)


def test_the_shared_instruction_goes_to_items_without_their_own(scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")

    ours = embedder.encode(["x", {"text": "y", "instruction": "Own."}], instruction="Shared.")

    expected = embedder.encode([Item.of("x", "Shared."), Item.of("y", "Own.")])
    assert torch.equal(ours, expected)


def test_vectors_are_float32_and_of_unit_length_unless_told_otherwise(scratch_embedder, scratch_settings):
    vectors = scratch_embedder("qwen2_vl").encode(["x", "a red circle"])
    raw = Embedder(EmbedderSettings(scratch_settings("qwen2_vl").backbone, ChatPrompt(), normalize=False), texts=["a"])

    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-6)
    assert abs(raw.encode("x").norm().item() - 1) > 0.1


def test_similarity_is_the_inner_product_of_every_pair(scratch_embedder):
    queries, targets = torch.randn(2, 3), torch.randn(4, 3)

    scores = scratch_embedder("qwen2_vl").similarity(queries, targets)

    assert scores.shape == (2, 4)
    assert scores[1, 2].item() == pytest.approx(float((queries[1] * targets[2]).sum()), abs=1e-6)


def test_an_unusable_item_is_named_by_its_number(tmp_path, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")
    missing = tmp_path / "missing.png"

    with pytest.raises(InputError, match=r"item 2: .*missing\.png"):
        embedder.encode(["x", "y", {"image": str(missing)}])
    with pytest.raises(InputError, match=r"item 1: item\.imagee: expected a known field.*did you mean 'image'"):
        embedder.encode(["x", {"imagee": "a.png"}])
    with pytest.raises(InputError, match=r"item 1: .*missing\.png"):
        embedder.prepare([Item.of("x"), Item((Image(missing),))], "query")


def test_encoding_leaves_training_mode_as_it_was_even_after_an_error(fresh_embedder):
    embedder = fresh_embedder().train()

    embedder.encode("x")
    assert embedder.training
    with pytest.raises(InputError):
        embedder.encode({"image": "missing.png"})
    assert embedder.training


def test_a_saved_model_still_tells_regions(tmp_path, picture, scratch_settings):
    settings = replace(scratch_settings("qwen2_vl"), regions=TextRegions(scale=8))
    embedder = Embedder(settings, texts=["(box 1 2 3 4)", "describe"]).eval()
    items = [{"image": picture(56, 56), "regions": [{"box": [0, 0, x, 56]}]} for x in (20, 50)]

    embedder.save(tmp_path / "saved")
    opened = Embedder.from_pretrained(tmp_path / "saved", device="cpu")

    assert opened.settings.regions == TextRegions(scale=8)
    assert torch.equal(opened.encode(items), embedder.encode(items))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_opens_to_the_same_bits(family, tmp_path, mixed_items, scratch_embedder):
    embedder = scratch_embedder(family, min_pixels=3136, max_pixels=50176)

    embedder.save(tmp_path / "run")
    opened = Embedder.from_pretrained(tmp_path / "run", device="cpu")

    assert torch.equal(opened.encode(mixed_items), embedder.encode(mixed_items))
    weights = dict(embedder.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in opened.named_parameters())
    assert opened.settings.backbone.max_pixels == 50176
    written = yaml.safe_load((tmp_path / "run/embedder.yaml").read_text())
    assert written["backbone"]["init_args"]["path"] == "."
    assert written["backbone"]["init_args"]["scratch"] is None


def test_transformers_opens_a_saved_model_to_the_same_weights(saved, scratch_embedder):
    theirs = AutoModel.from_pretrained(saved)

    weights = dict(scratch_embedder("qwen2_vl").backbone.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in theirs.named_parameters())
    assert SEGMENTS not in (saved / "config.json").read_text()


def test_a_moved_run_opens_and_saves_again(tmp_path, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")
    embedder.save(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")

    Embedder.from_pretrained(tmp_path / "moved", device="cpu").save(tmp_path / "again")

    again = Embedder.from_pretrained(tmp_path / "again", device="cpu")
    assert torch.equal(again.encode("x"), embedder.encode("x"))


@pytest.fixture
def saved(tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl").save(tmp_path / "run")
    return tmp_path / "run"


def test_overrides_change_what_was_saved(saved, picture):
    opened = Embedder.from_pretrained(saved, device="cpu", max_pixels=3136, dtype="bfloat16", max_length=9)

    assert opened.settings.backbone.max_pixels == 3136
    assert next(opened.parameters()).dtype == torch.bfloat16
    assert len(opened.prepare([Item.of("a red circle " * 9)], "query")[0]) == 9
    assert opened.encode("x").dtype == torch.float32


def test_an_unusable_override_is_named(saved):
    with pytest.raises(InputError, match="got 'max_pixel'; did you mean 'max_pixels'"):
        Embedder.from_pretrained(saved, max_pixel=1)
    with pytest.raises(InputError, match="dtype"):
        Embedder.from_pretrained(saved, dtype="float33")
    with pytest.raises(InputError, match="max_pixels: expected at least min_pixels 3136, got 10"):
        Embedder.from_pretrained(saved, max_pixels=10)


def test_a_directory_without_settings_asks_for_a_profile(golden):
    message = r"expected embedder\.yaml beside the weights, got none; name a profile.*vlm2vec"

    with pytest.raises(InputError, match=message):
        Embedder.from_pretrained(golden / "vlm2vec/qwen2_vl")


def test_an_unknown_profile_and_a_missing_directory_are_named(golden, tmp_path):
    with pytest.raises(InputError, match="profile: expected a known profile, got 'vlm2vecc'; did you mean 'vlm2vec'"):
        Embedder.from_pretrained(golden / "vlm2vec/qwen2_vl", profile="vlm2vecc")
    with pytest.raises(InputError, match=r"got 'VLM2Vec/VLM2Vec-V2'; did you mean 'VLM2Vec/VLM2Vec-V2\.0'"):
        Embedder.from_pretrained(golden / "vlm2vec/qwen2_vl", profile="VLM2Vec/VLM2Vec-V2")
    with pytest.raises(InputError, match=r"nothing-here: expected a directory or Hub id"):
        Embedder.from_pretrained(tmp_path / "nothing-here")


def test_saving_replaces_an_old_run_whole(saved, scratch_embedder):
    (saved / "stale.txt").write_text("of the old run")

    scratch_embedder("qwen2_5_vl").save(saved)

    assert not (saved / "stale.txt").exists()
    assert Embedder.from_pretrained(saved, device="cpu").backbone.model.config.model_type == "qwen2_5_vl"
    assert sorted(p.name for p in saved.parent.iterdir()) == ["run"]
    assert saved.stat().st_mode & 0o777 == 0o755


def test_a_failed_save_leaves_the_old_run(saved, fresh_embedder):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    broken = fresh_embedder()
    broken.backbone.checkpoint.tokenizer = None

    with pytest.raises(AttributeError):
        broken.save(saved)

    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert sorted(p.name for p in saved.parent.iterdir()) == ["run"]


def test_a_scratch_model_takes_no_adapter_and_needs_texts(scratch_settings):
    backbone = scratch_settings("qwen2_vl").backbone

    with pytest.raises(InputError, match="lora: expected a checkpoint to adapt, got a scratch model"):
        Embedder(EmbedderSettings(backbone, lora=Lora()))
    with pytest.raises(InputError, match=r"backbone\.scratch: expected texts to train a tokenizer on"):
        Embedder(EmbedderSettings(backbone))


def test_exactly_one_of_path_and_scratch_is_needed():
    for backbone, got in ((QwenVL(), "neither"), (QwenVL(path="x", scratch=Scratch()), "both")):
        with pytest.raises(InputError, match=f"backbone: expected path or scratch, got {got}; give exactly one"):
            Embedder(EmbedderSettings(backbone))


def test_settings_made_in_python_are_checked_as_those_of_a_file_are():
    scratch = Scratch("qwen2_vl")
    wrong = {
        r"backbone\.resize: expected one of pil, torchvision, got 'PIL'; known: pil": QwenVL(
            scratch=scratch, resize="PIL"
        ),
        r"backbone\.scratch: expected a value of type Scratch \| None, got 'qwen2_vl'": QwenVL(scratch="qwen2_vl"),
        r"backbone\.min_side: expected a value of type int, got True": QwenVL(scratch=scratch, min_side=True),
    }
    for message, backbone in wrong.items():
        with pytest.raises(InputError, match=message):
            Embedder(EmbedderSettings(backbone), texts=["x"])
    with pytest.raises(
        InputError, match=r"pooler\.drop_on_query: expected one of text, instruction, .* mean 'instruction'"
    ):
        Embedder(
            EmbedderSettings(QwenVL(scratch=scratch), pooler=MeanToken(drop_on_query=("instructions",))), texts=["x"]
        )


@pytest.mark.parametrize("side", ["document", "Query"])
def test_a_side_that_there_is_not_is_refused(side, scratch_embedder):
    for call in (scratch_embedder("qwen2_vl").encode, scratch_embedder("qwen2_vl").prepare):
        with pytest.raises(InputError, match=f"side: expected query or target, got '{side}'"):
            call([Item.of("x")], side=side)


def test_saving_takes_nothing_away_but_a_saved_embedder(tmp_path, scratch_embedder):
    embedder = scratch_embedder("qwen2_vl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "cat.jpg").write_bytes(b"picture")

    for name, holds in (("mine", "a folder of thesis.txt"), ("cat.jpg", "a file")):
        with pytest.raises(InputError, match=rf"{name}: expected a new folder, .*, got {holds}; name another folder"):
            embedder.save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    embedder.save(tmp_path / "empty")
    embedder.save(tmp_path / "empty")

    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    assert (tmp_path / "cat.jpg").read_bytes() == b"picture"
    assert torch.equal(Embedder.from_pretrained(tmp_path / "empty", device="cpu").encode("x"), embedder.encode("x"))


def test_a_name_that_leads_nowhere_is_not_answered_with_a_profile_alone(tmp_path):
    with pytest.raises(InputError, match=r"runs/demo/finale: expected a directory or Hub id, got no such directory"):
        Embedder.from_pretrained("runs/demo/finale")
    with pytest.raises(InputError, match=r"nobody/nothing: expected a directory, or a Hub repository that lies"):
        Embedder.from_pretrained("nobody/nothing")


def test_a_folder_of_a_run_is_answered_with_its_final_model(saved, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/final").symlink_to(saved)

    with pytest.raises(InputError, match=r"demo: expected embedder.yaml .*, got none; name .*demo/final$"):
        Embedder.from_pretrained(tmp_path / "demo")


def test_a_misspelt_name_is_answered_with_the_nearest_checkpoint():
    with pytest.raises(InputError, match=r"VLM2Vec/VLM2Vec-V2: .*; did you mean 'VLM2Vec/VLM2Vec-V2.0'\? Else"):
        Embedder.from_pretrained("VLM2Vec/VLM2Vec-V2")


def test_torchs_own_names_of_types_are_understood_and_unknown_devices_are_refused(saved):
    assert Embedder.from_pretrained(saved, device="cpu", dtype=torch.bfloat16).settings.backbone.dtype == "bfloat16"
    with pytest.raises(InputError, match=r"device: expected cpu, cuda, .*, got 'gpu'"):
        Embedder.from_pretrained(saved, device="gpu")


def test_a_saved_adapter_takes_no_profile(golden, tmp_path):
    settings = EmbedderSettings(QwenVL(path=str(golden / "vlm2vec/qwen2_vl")), lora=Lora(r=2))
    Embedder(settings).save(tmp_path / "run")

    with pytest.raises(InputError, match=r"got a saved embedder with its embedder\.yaml; leave profile out"):
        Embedder.from_pretrained(tmp_path / "run", profile="vlm2vec")
    with pytest.raises(InputError, match=r"expected adapter_model\.safetensors .*; name .*run/adapter"):
        Embedder(EmbedderSettings(QwenVL(path=str(golden / "vlm2vec/qwen2_vl"), adapter=str(tmp_path / "run"))))


def test_the_side_matters_where_the_pooler_drops_an_instruction(scratch_embedder):
    embedder = scratch_embedder("qwen2_vl", pooler=MeanToken())
    item = Item.of("a red circle", "Represent the given image.")

    query, target = embedder.encode(item, side="query"), embedder.encode(item, side="target")

    assert not torch.allclose(query, target, atol=1e-3)


def test_prepared_media_are_kept_in_the_cache(tmp_path, picture, fresh_embedder):
    embedder = fresh_embedder()
    embedder.cache_media(1 << 20)
    picture(56, 56).save(tmp_path / "a.png")

    with counting() as work:
        first = embedder.encode({"image": tmp_path / "a.png"})
        second = embedder.encode({"image": PIL.Image.open(tmp_path / "a.png")})
        third = embedder.encode({"image": tmp_path / "a.png", "text": "x"})

    assert work["media_decoded"] == 2
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
