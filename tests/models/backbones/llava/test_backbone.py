"""What is the LLaVA family's own: prompts, one tile or many, what trains, and refusals."""

import json
import pickle
import re
import shutil

import pytest
import torch

from mmembed import Embedder, Image, Item, Region, Video
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.profiles import load_profile
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from mmembed.models.settings import ChatPrompt, EmbedderSettings, Llava, RawPrompt, Scratch
from tests.cases import draw
from tests.models.backbones.llava.small import make_llava, small_llava

ARCHITECTURES = ("llava_next", "llava_onevision", "llava")
CLIP = Video(tuple(draw(40, 70, seed) for seed in range(3)))


def text_of(embedder, item):
    """What the model reads, a placeholder once for a run of them."""
    (row,) = embedder.prepare([Item.of(item)], "query")
    media = (row.kinds == Kind.IMAGE) | (row.kinds == Kind.VIDEO)
    first = torch.cat([torch.tensor([True]), ~(media[1:] & media[:-1])])
    return embedder.backbone.preprocessor.tokenizer.decode(row.ids[first])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llava") / "saved"
    small_llava("llava_next").save(directory)
    return directory


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_literal_image_token_in_words_is_text(architecture):
    embedder = small_llava(architecture, prompt=RawPrompt())
    (row,) = embedder.prepare([Item((Image(draw(28, 28)), " what is <image> or <video>?"))], "query")

    places = row.ids == embedder.backbone.preprocessor.image_id
    assert row.kinds[places].tolist() == [Kind.IMAGE] * (int(places.sum()) - 1) + [Kind.TEXT]


@pytest.mark.parametrize("text", ["mistral", "llama", "qwen2"])
def test_any_language_model_embeds_an_item_beside_others_as_alone(text):
    embedder = small_llava("llava_next", text)
    items = [
        Item.of("a red circle"),
        Item.of({"image": draw(90, 40), "text": "blue"}, "Find it."),
        Item((Image(draw(28, 28)), Image(draw(60, 80)), Image(draw(28, 28)), "and a longer text beside it")),
    ]

    assert embedder.backbone.model.config.text_config.model_type == text
    together = embedder(collate(embedder.prepare(items, "query"))).detach()

    alone = torch.cat([embedder.encode([item]) for item in items])
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)
    assert torch.pdist(alone).min() > 1e-3


def test_a_picture_alone_is_cut_into_tiles_and_several_are_one_tile_each_in_onevision():
    embedder, picture = small_llava("llava_onevision"), Image(draw(56, 56))
    alone, pair, beside_clip = embedder.prepare(
        [Item((picture, "x")), Item((picture, picture, "x")), Item((picture, CLIP, "x"))], "query"
    )

    assert [len(row.media[0].pixels) for row in (alone, pair, beside_clip)] == [5, 1, 5]
    assert pair.media[0].fingerprint == pair.media[1].fingerprint != alone.media[0].fingerprint
    assert beside_clip.media[0].fingerprint == alone.media[0].fingerprint
    assert int((pair.kinds == Kind.IMAGE).sum()) == 2 * (16 + 1)


def test_a_picture_is_kept_in_memory_once_for_each_way_it_is_shown():
    embedder, picture = make_llava("llava_onevision"), Image(draw(56, 56))
    items = [Item((picture, "x")), Item((picture, picture, "x"))]
    plain = [row.fingerprint for row in embedder.prepare(items, "query")]
    embedder.cache_media(10**7)

    with counting() as counted:
        again = [[row.fingerprint for row in embedder.prepare(items, "query")] for _ in range(2)]

    assert again == [plain, plain]
    assert counted["media_decoded"] == 2


def test_several_pictures_stay_cut_into_tiles_in_llava_next():
    (row,) = small_llava("llava_next").prepare([Item((Image(draw(56, 56)), Image(draw(28, 56)), "x"))], "query")

    assert [len(medium.pixels) for medium in row.media] == [5, 3]


def test_each_distinct_medium_passes_the_tower_once_whatever_items_it_is_in():
    embedder, picture = small_llava("llava_onevision"), Image(draw(56, 56))
    items = [Item((picture, "a")), Item((picture, "b")), Item((picture, picture, CLIP, "c"))]
    batch = collate(embedder.prepare(items, "query"))

    with counting() as counted, torch.no_grad():
        features = embedder.backbone.vision(batch)

    assert counted["tower_forwards"] == len(features.maps) == 3
    assert batch.slots.tolist() == [0, 0, 1, 1, 2]


def test_a_clip_of_one_frame_is_no_picture():
    embedder, frame = small_llava("llava_onevision"), draw(28, 28)
    (row,) = embedder.prepare([Item.of({"video": Video((frame,)), "text": "x"})], "query")

    assert int((row.kinds == Kind.VIDEO).sum()) == 4 + 1
    assert row.media[0].grid == (1, 1, 1)


def test_frames_may_differ_in_size():
    embedder = small_llava("llava_onevision")
    (row,) = embedder.prepare([Item.of({"video": Video((draw(28, 28), draw(90, 40))), "text": "x"})], "query")

    assert row.media[0].pixels.shape == (2, 3, 1, 28, 28)
    assert embedder(collate([row])).norm().item() == pytest.approx(1, abs=1e-6)


def test_regions_are_in_the_picture_as_it_was_decoded():
    embedder = small_llava("llava_next")
    (row,) = embedder.prepare([Item((Image(draw(90, 40)), "x"))], "query")

    assert row.media[0].size == (90, 40)
    with pytest.raises(InputError, match=r"image\.regions: expected no regions"):
        embedder.prepare([Item((Image(draw(90, 40), regions=(Region(box=(0, 0, 9, 9)),)), "x"))], "query")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_preprocessor_may_travel_to_another_process(architecture):
    preprocessor = small_llava(architecture).backbone.preprocessor
    item = Item((Image(draw(40, 80)), "a red circle"))

    row, again = preprocessor(item, "query"), pickle.loads(pickle.dumps(preprocessor))(item, "query")

    assert row.fingerprint == again.fingerprint
    assert len(pickle.dumps(preprocessor)) < 200_000


@pytest.mark.parametrize("architecture", ["llava_next", "llava"])
def test_weights_behind_the_layer_that_is_read_do_not_train(architecture):
    embedder = make_llava(architecture)

    frozen = {name for name, p in embedder.backbone.model.named_parameters() if not p.requires_grad}

    assert {name.split(".")[1] for name in frozen} == {"encoder", "post_layernorm"}
    assert {name.split(".")[3] for name in frozen if "layers" in name} == {"2"}


def test_the_line_break_trains_with_the_tower():
    embedder = make_llava("llava_next")
    parameters = {id(p) for p in embedder.backbone.tower.parameters()}

    embedder(collate(embedder.prepare([Item.of({"image": draw(50, 50)})], "query")))[0, 0].backward()

    newline = embedder.backbone.model.image_newline
    assert id(newline) in parameters
    assert newline.grad.abs().max() > 0


def test_e5_v_writes_the_published_strings():
    prompt = load_profile("e5_v").embedder.prompt
    embedder = small_llava("llava_next", "llama", prompt=prompt)
    turns = (
        "<s><|start_header_id|>user<|end_header_id|>\n\n{}\nSummary above {} in one word: <|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n \n"
    )

    assert text_of(embedder, "A cat.") == turns.format("A cat.", "sentence")
    assert text_of(embedder, {"image": draw(28, 28)}) == turns.format("<image>", "image")


def test_the_template_of_the_checkpoint_begins_the_text_once():
    said = text_of(small_llava("llava_next"), Item((Image(draw(28, 28)), "a red circle"), "Find it."))

    assert said == "<s>Find it. USER: <image>\na red circle ASSISTANT:"


def test_a_template_of_its_own_replaces_the_checkpoints(saved):
    prompt = ChatPrompt(template="{{ messages[0]['content'] }}!", content="text")
    embedder = Embedder(EmbedderSettings(Llava(path=str(saved)), prompt))

    assert text_of(embedder, "a red circle") == "<s>a red circle!"


@pytest.mark.parametrize("architecture", ["llava_next", "llava"])
def test_a_video_is_refused_in_words(architecture):
    with pytest.raises(InputError, match=r"item 0: item\.video: expected text and pictures: .*, got a video"):
        small_llava(architecture).encode([{"video": CLIP, "text": "x"}])


def test_a_checkpoint_of_another_family_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match=r"expected a LLaVA checkpoint, got 'qwen2_vl'"):
        Llava(scratch=Scratch("qwen2_vl")).build(prompt=ChatPrompt(), texts=["x"])
    config = json.loads((saved / "config.json").read_text())
    copy = shutil.copytree(saved, tmp_path / "copy")
    (copy / "config.json").write_text(json.dumps(config["text_config"]))

    with pytest.raises(InputError, match=r"model_type: expected a LLaVA checkpoint, got 'mistral'"):
        Llava(path=str(copy)).build(prompt=ChatPrompt())


def test_a_tokenizer_without_the_image_token_is_refused(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"image_token_index": 10**6}))

    with pytest.raises(InputError, match=r"expected a tokenizer with the image token 1000000 of config\.json"):
        Llava(path=str(copy)).build(prompt=ChatPrompt())


def test_pictures_cut_by_a_processor_of_another_family_are_refused(tmp_path):
    directory = tmp_path / "saved"
    small_llava("llava").save(directory)
    facts = json.loads((directory / "preprocessor_config.json").read_text())
    (directory / "preprocessor_config.json").write_text(
        json.dumps(facts | {"image_processor_type": "PixtralImageProcessor"})
    )

    with pytest.raises(InputError, match=r"image_processor_type: expected one of CLIPImageProcessor, .*Pixtral"):
        Llava(path=str(directory)).build(prompt=ChatPrompt())


@pytest.mark.parametrize(
    ("architecture", "field", "value", "message"),
    [
        ("llava_onevision", "vision_aspect_ratio", "anyres", "expected anyres_max_ and a number, e.g. anyres_max_9"),
        ("llava_next", "vision_feature_select_strategy", "full", "a grid of tiles has no place for a class token"),
    ],
)
def test_a_config_that_cannot_be_packed_is_refused_at_opening(architecture, field, value, message, tmp_path):
    small_llava(architecture).save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text())
    (tmp_path / "saved/config.json").write_text(json.dumps(config | {field: value}))

    with pytest.raises(InputError, match=rf"config\.json: {field}: expected .*{re.escape(message[9:])}"):
        Llava(path=str(tmp_path / "saved")).build(prompt=ChatPrompt())


def test_layers_behind_the_one_that_is_read_do_not_run():
    embedder = make_llava("llava_next")
    ran = []
    for number, layer in enumerate(embedder.backbone.model.vision_tower.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))

    embedder.encode({"image": draw(28, 28)})

    assert ran == [0, 1]


def test_a_directory_without_preprocessing_facts_is_refused(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()

    with pytest.raises(
        InputError, match=r"preprocessor_config\.json: expected how pictures are scaled .*, got no such file"
    ):
        Llava(path=str(copy)).build(prompt=ChatPrompt())
