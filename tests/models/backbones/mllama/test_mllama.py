"""Llama-3.2-Vision: our states against transformers' own processor and forward, and which token sees which picture."""

import itertools
import pickle
import re
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaImageProcessorPil,
    MllamaProcessor,
)
from transformers.models.mllama.processing_mllama import (
    build_string_from_input,
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from mmembed import Embedder, Image, Item
from mmembed.errors import InputError
from mmembed.models.backbones.mllama.cross import cross_attention
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Insertion, Sequence, collate
from mmembed.models.settings import ChatPrompt, EmbedderSettings, LastToken, Mllama, RawPrompt, Scratch
from mmembed.models.token_layout import Padding
from tests.cases import LOUD, WORDS, draw

# transformers before 5.20 warns of how it calls itself
pytestmark = pytest.mark.filterwarnings("ignore:`hidden_state` is deprecated:FutureWarning")

IMAGE_PROCESSORS = {"pil": MllamaImageProcessorPil, "torchvision": MllamaImageProcessor}
ONE = {"image": draw(84, 56), "text": "the same, but blue"}
TALL = {"image": draw(30, 95), "text": "a red circle", "instruction": "Find the picture."}
FOUR = Item(
    (Image(draw(56, 56)), " or ", Image(draw(112, 56)), Image(draw(30, 90)), " then ", Image(draw(20, 20)), "?")
)
TEXT = {"text": "a much longer text about a red circle and a blue circle", "instruction": "Find the picture."}


def small(prompt=None, *, vision=LOUD, **settings):
    scratch = Scratch("mllama", text=LOUD, vision=vision)
    settings = EmbedderSettings(Mllama(scratch=scratch, **settings), prompt or ChatPrompt())
    return Embedder(settings, texts=WORDS).eval()


@pytest.fixture(scope="module")
def embedder():
    return small()


@pytest.fixture(scope="module")
def saved(embedder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("mllama") / "saved"
    embedder.save(directory)
    return directory


def processor_of(embedder):
    checkpoint, settings = embedder.backbone.checkpoint, embedder.settings.backbone
    vision = checkpoint.model.config.vision_config
    pictures = IMAGE_PROCESSORS[settings.resize](
        size={"height": vision.image_size, "width": vision.image_size},
        max_image_tiles=vision.max_num_tiles,
        image_mean=checkpoint.image_mean,
        image_std=checkpoint.image_std,
    )
    return MllamaProcessor(pictures, checkpoint.tokenizer, chat_template=checkpoint.tokenizer.chat_template)


def messages_of(item):
    head = [] if item.instruction is None else [("system", [item.instruction])]
    turns = [*head, ("user", item.content)]
    return [{"role": role, "content": [content_of(part) for part in parts]} for role, parts in turns]


def content_of(part):
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}


@torch.no_grad()
def library_states(embedder, items):
    """The library's ids and last hidden states of each item, all passed through its model together."""
    processor = processor_of(embedder)
    prompts = [processor.apply_chat_template(messages_of(i), add_generation_prompt=True) for i in items]
    images = [[part.source for part in item.media] for item in items]
    inputs = processor(
        text=prompts, images=images if any(images) else None, padding=True, padding_side="right", return_tensors="pt"
    )
    states = embedder.backbone.model(**inputs, use_cache=False).last_hidden_state
    real = inputs["attention_mask"].bool()
    return [(ids[r].tolist(), s[r]) for ids, s, r in zip(inputs["input_ids"], states, real, strict=True)]


@torch.no_grad()
def our_states(embedder, items, layers=()):
    batch = collate(embedder.prepare(items, "query"))
    backbone = embedder.backbone
    hidden = backbone.run(backbone.embed(batch, backbone.vision(batch)), layers)
    return list(zip(batch.ids.split(batch.lengths.tolist()), hidden.states.split(batch.lengths.tolist()), strict=True))


def assert_equal(ours, theirs):
    for (ids, states), (their_ids, their_states) in zip(ours, theirs, strict=True):
        assert ids.tolist() == their_ids
        assert torch.allclose(states, their_states, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"resize": "torchvision"}, {"attention": "eager", "padding_side": "left"}],
    ids=["pil", "torchvision", "eager, left"],
)
def test_tokens_and_states_equal_the_librarys_for_every_item(settings):
    embedder = small(**settings)
    items = [Item.of(item) for item in (ONE, TALL, FOUR, TEXT)]

    alone = [library_states(embedder, [item])[0] for item in items]

    for item, theirs in zip(items, alone, strict=True):
        assert_equal(our_states(embedder, [item]), [theirs])
    assert_equal(our_states(embedder, items), alone)


def test_a_batch_of_pictures_with_different_tiles_equals_the_librarys(embedder):
    items = [Item.of(item) for item in (ONE, TALL, {"image": draw(28, 28)})]

    assert_equal(our_states(embedder, items), library_states(embedder, items))


def test_a_text_beside_a_picture_is_not_moved_by_it_in_any_layer(embedder):
    text, picture = Item.of(TEXT), Item.of(ONE)
    layers = (0, 1, 2, 3)

    @torch.no_grad()
    def hidden(items):
        batch = collate(embedder.prepare(items, "query"))
        return embedder.backbone.run(embedder.backbone.embed(batch, embedder.backbone.vision(batch)), layers)

    alone, beside = hidden([text]), hidden([text, picture])

    assert [len(layer) for layer in alone.layers] == [len(alone.ids)] * 4
    for ours, theirs in zip([alone.states, *alone.layers], [beside.states, *beside.layers], strict=True):
        assert torch.allclose(ours, theirs[: len(alone.ids)], atol=1e-6, rtol=0)
    assert_equal(our_states(embedder, [text]), [(alone.ids.tolist(), alone.states)])


def sequence_of(kinds, features=3):
    """One row; each picture has two tiles' features and one missing tile's."""
    kinds = torch.tensor(kinds, dtype=torch.uint8)
    length = len(kinds)
    pictures = int((kinds == Kind.IMAGE).sum())
    context = [part for _ in range(pictures) for part in (torch.ones(2 * features, 4), torch.ones(features, 4))]
    positions = torch.arange(length).expand(3, -1)
    flat = torch.zeros(length, 4), torch.zeros(length, dtype=torch.long), torch.tensor([length])
    return Sequence(*flat, positions, kinds, kinds == Kind.IMAGE, torch.tensor([True]), context=[context])


PATTERNS = [kinds for kinds in itertools.product([Kind.TEXT, Kind.IMAGE], repeat=5) if Kind.IMAGE in kinds]


@pytest.mark.parametrize("kinds", PATTERNS, ids=lambda kinds: "".join(str(int(kind)) for kind in kinds))
def test_each_token_sees_the_pictures_that_the_librarys_processor_says(kinds):
    sequence, pictures = sequence_of(kinds), kinds.count(Kind.IMAGE)
    spans = get_cross_attention_token_mask([int(kind) for kind in kinds], int(Kind.IMAGE))
    tiles = convert_sparse_cross_attention_mask_to_dense([spans], [[2] * pictures], 3, len(kinds))
    theirs = torch.from_numpy(tiles[0]).bool().repeat_interleave(3, -1).flatten(1)
    after = theirs.any(1)

    cross = cross_attention(sequence, Padding(sequence.lengths))

    assert cross.reads[0, 0, :, 0].tolist() == after.tolist()
    assert cross.visible[0, 0][after].tolist() == theirs[after].tolist()
    assert cross.visible[0, 0][~after].all()


def test_what_is_inserted_sees_the_picture_it_stands_behind():
    text, image = Kind.TEXT, Kind.IMAGE
    before = sequence_of([text, image, text, image, text])
    insertions = [Insertion(0, at, torch.zeros(2, 4), torch.zeros(3, 2)) for at in (1, 2, 5)]

    after = before.insert(insertions)

    cross = cross_attention(after, Padding(after.lengths))
    written = sequence_of([text, text, text, image, text, text, text, image, text, text, text])
    assert torch.equal(cross.visible, cross_attention(written, Padding(written.lengths)).visible)


def test_no_row_is_padded_beyond_the_longest_context_of_its_batch(embedder):
    rows = embedder.prepare([Item.of(item) for item in (ONE, FOUR, TEXT)], "query")
    batch = collate(rows)
    sequence = embedder.backbone.embed(batch, embedder.backbone.vision(batch))

    cross = cross_attention(sequence, Padding(sequence.lengths))

    # five features to a tile of 28 pixels, four tiles to a picture
    assert cross.states.shape[:2] == (3, 4 * 4 * 5)
    assert cross.states[0, 20:].abs().sum() == 0
    assert cross.states[2].abs().sum() == 0


@pytest.mark.parametrize("resize", IMAGE_PROCESSORS)
@pytest.mark.parametrize("size", [(90, 1), (1, 90), (50, 3), (1, 1), (300, 280)])
def test_a_picture_of_any_size_is_cut_as_the_librarys_processor_cuts_it(size, resize):
    embedder = small(resize=resize)
    picture = draw(*size)

    row = embedder.prepare([Item.of({"image": picture})], "query")[0]

    layout = {"input_data_format": "channels_last"} if resize == "pil" else {}
    theirs = processor_of(embedder).image_processor(picture, return_tensors="pt", **layout)
    tiles = row.media[0].grid[1] * row.media[0].grid[2]
    batch = collate([row])
    ours = embedder.backbone._canvases(batch.pixels, torch.arange(4)[None] < tiles)
    assert row.media[0].pixels.dtype == torch.uint8
    assert theirs["num_tiles"] == [[tiles]]
    assert torch.allclose(ours, theirs["pixel_values"][0], atol=1e-5, rtol=0)


def test_a_tower_of_other_arrangements_is_fed_by_its_own():
    vision = LOUD | {"max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
    embedder = small(vision=vision)
    items = [Item.of({"image": draw(90, 30)}), Item.of({"image": draw(30, 90)}), Item.of({"image": draw(28, 28)})]

    assert [row.media[0].grid for row in embedder.prepare(items, "query")] == [(1, 1, 2), (1, 2, 1), (1, 1, 1)]
    assert_equal(our_states(embedder, items), library_states(embedder, items))


RAW = {
    "text": (Item.of("a red circle"), "a red circle"),
    "picture": (Item.of({"image": draw(56, 56)}, "Represent the given image."), "<|image|> Represent the given image."),
    "pictures": (Item((Image(draw(28, 28)), Image(draw(56, 28)), "both")), "<|image|><|image|>both"),
    "picture last": (Item(("a ", Image(draw(28, 28)))), "a <|image|>"),
}


@pytest.mark.parametrize("case", RAW)
def test_a_raw_prompt_begins_as_the_librarys_processor_begins_it(case):
    embedder = small(RawPrompt())
    item, words = RAW[case]
    tokenizer = embedder.backbone.checkpoint.tokenizer

    ids = embedder.prepare([item], "query")[0].ids.tolist()

    assert ids == tokenizer(build_string_from_input(words, tokenizer.bos_token, "<|image|>")).input_ids


def test_mme5_writes_its_strings_as_published(embedder, saved):
    model = Embedder.from_pretrained(saved, profile="mme5", device="cpu")
    item = Item.of(
        {"image": draw(56, 56), "text": "What is in the image"}, "Represent the given image with the question:"
    )
    published = "<|image|><|begin_of_text|>Represent the given image with the question: What is in the image"

    row = model.prepare([item], "query")[0]

    assert row.ids.tolist() == model.backbone.checkpoint.tokenizer(published).input_ids
    assert isinstance(model.settings.pooler, LastToken)
    assert model.encode([item]).norm().item() == pytest.approx(1.0, abs=1e-6)


def with_head(embedder):
    full = MllamaForConditionalGeneration(embedder.backbone.model.config)
    full.model.load_state_dict(embedder.backbone.model.state_dict())
    return full


def opened(directory, **settings):
    return Embedder(EmbedderSettings(Mllama(path=str(directory), **settings), ChatPrompt())).eval()


def test_a_checkpoint_with_a_head_opens_under_the_released_names(embedder, saved, tmp_path):
    with_head(embedder).save_pretrained(tmp_path)
    embedder.backbone.checkpoint.tokenizer.save_pretrained(tmp_path)
    shutil.copy(saved / "preprocessor_config.json", tmp_path)

    names = load_file(tmp_path / "model.safetensors")

    assert {"language_model.lm_head.weight", "language_model.model.norm.weight"} <= names.keys()
    assert torch.equal(opened(tmp_path).encode([ONE, TEXT]), embedder.encode([ONE, TEXT]))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("age", ["older", "newer"])
def test_an_adapter_saved_by_peft_on_the_full_model_loads_under_names_of_any_age(age, embedder, saved, tmp_path):
    config = LoraConfig(r=2, target_modules=r".*layers.*(self|cross)_attn\.(q|v)_proj", init_lora_weights=False)
    full = get_peft_model(with_head(embedder), config).eval()
    full.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    if age == "older":
        inside = re.compile(r"(?<=base_model\.model\.)model\.")
        weights = {inside.sub("", key): weight for key, weight in load_file(file).items()}
        weights = {key.replace("language_model.", "language_model.model."): weight for key, weight in weights.items()}
        assert not weights.keys() & load_file(file).keys()
        save_file(weights, file)

    adapted = opened(saved, adapter=str(tmp_path))

    processor = processor_of(embedder)
    prompt = processor.apply_chat_template(messages_of(Item.of(ONE)), add_generation_prompt=True)
    inputs = processor(text=prompt, images=ONE["image"], return_tensors="pt")
    with torch.no_grad():
        states = full.base_model.model.model(**inputs, use_cache=False).last_hidden_state[0]
    assert torch.allclose(our_states(adapted, [Item.of(ONE)])[0][1], states, atol=1e-5, rtol=0)
    assert not torch.allclose(adapted.encode([ONE]), embedder.encode([ONE]), atol=1e-2)


def test_a_tokenizer_without_the_image_token_is_refused(embedder, saved, tmp_path):
    for file in saved.iterdir():
        if file.name not in ("tokenizer.json",):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    words = (saved / "tokenizer.json").read_text(encoding="utf-8").replace("<|image|>", "<|picture|>")
    (tmp_path / "tokenizer.json").write_text(words.replace('"<|picture|>": ', '"<|image |>": '), encoding="utf-8")

    with pytest.raises(InputError, match=r"expected a tokenizer with the image token \d+ of config\.json"):
        opened(tmp_path)


def test_a_kernel_that_takes_no_mask_is_refused():
    with pytest.raises(InputError, match=r"backbone\.attention: expected a kernel that takes the masks"):
        Mllama(path="anywhere", attention="flash_attention_2")


def test_the_preprocessor_goes_to_workers(embedder):
    copy = pickle.loads(pickle.dumps(embedder.backbone.preprocessor))

    ours, theirs = (make(Item.of(ONE), "query") for make in (copy, embedder.backbone.preprocessor))

    assert ours.fingerprint == theirs.fingerprint
