"""InstructCIR's released form: its translation, and every embedding that its published code was seen to compute."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, LlavaModel

from mmembed import Embedder, Image, Item
from mmembed.errors import InputError
from mmembed.models.settings import RawPrompt
from tests.cases import GOLDEN

ROOT = GOLDEN / "cir/instructcir"
PICTURES = GOLDEN / "vlm2vec/inputs/images"
RECORD = json.loads((ROOT / "golden.json").read_text())
CASES = RECORD["cases"]
IMAGE_TOKENS = 256
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def published():
    return load_file(ROOT / "golden.safetensors")


@pytest.fixture(scope="module")
def short_trained(tmp_path_factory, open_instructcir):
    """The checkpoint as if it first was trained on rows of 300 tokens."""
    directory = shutil.copytree(ROOT / "ckpt", tmp_path_factory.mktemp("instructcir") / "ckpt")
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["original_max_position_embeddings"] = 300
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def gallery():
    return [Item.of({"image": PICTURES / name}) for name in CASES["gallery"]["images"]]


def queries():
    case = CASES["query_batch"]
    return [
        Item((Image(PICTURES / name), f'Modify this image with "{change}", desribe modified image in one word:'))
        for name, change in zip(case["images"], case["captions"], strict=True)
    ]


def together(embedder, items):
    return embedder.encode(items, batch_tokens=10**6)


def test_the_gallery_and_the_queries_embed_as_published(open_instructcir, published):
    embedder = open_instructcir()

    assert (together(embedder, gallery()) - published["gallery.emb"]).abs().max() <= TOLERANCE
    assert (together(embedder, queries()) - published["query_batch.emb"]).abs().max() <= TOLERANCE
    singles = torch.cat([embedder.encode([query]) for query in queries()])
    assert (singles - published["query_singles.emb"]).abs().max() <= TOLERANCE


def test_text_alone_embeds_as_published(published):
    model = Embedder.from_pretrained(ROOT / "ckpt", profile="vlm2vec_llava_next", device="cpu")

    assert isinstance(model.settings.prompt, RawPrompt)
    assert (model.encode(CASES["text"]["texts"]) - published["text.emb"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("case", "items"), [("gallery", gallery()), ("query_batch", queries())])
def test_tokens_equal_the_published_ones(case, items, open_instructcir, published):
    rows = open_instructcir().prepare(items, "query")

    expected = [
        line[real.bool()].tolist()
        for line, real in zip(published[f"{case}.input_ids"], published[f"{case}.attention_mask"], strict=True)
    ]
    image = RECORD["tokenizer"]["image"]
    for row, ids in zip(rows, expected, strict=True):
        at = ids.index(image)
        assert row.ids.tolist() == ids[:at] + [image] * IMAGE_TOKENS + ids[at + 1 :]
        assert row.ids[:2].tolist() == [RECORD["tokenizer"]["bos"], 430]


def test_pixels_equal_the_published_ones(open_instructcir, published):
    backbone = open_instructcir().backbone
    rows = [backbone.preprocessor(item, "target") for item in gallery()]

    pixels = torch.cat([row.media[0].pixels[:, :, 0] for row in rows]) / 255
    normal = (pixels - backbone.mean[:, 0]) / backbone.std[:, 0]

    assert normal.mean((1, 2, 3)).tolist() == pytest.approx(RECORD["pixels"]["mean"], abs=1e-6)
    # the recorded lines of each crop
    assert all(
        any(torch.allclose(normal[i, :, at], line, atol=1e-5) for at in range(normal.shape[2]))
        for i in range(len(normal))
        for line in published["pixel_rows"][i].unbind(1)
    )


def test_padding_on_the_right_moves_nothing_where_the_published_code_read_padding(open_instructcir, published):
    ours = together(open_instructcir(padding_side="right"), queries())
    theirs = published["query_batch_rightpad.emb"]
    longest = int(published["query_batch_rightpad.attention_mask"].sum(1).argmax())

    assert (ours - published["query_batch.emb"]).abs().max() <= TOLERANCE
    assert (ours[longest] - theirs[longest]).abs().max() <= TOLERANCE
    assert (theirs - published["query_batch.emb"]).abs().max() > 0.1


def test_bfloat16_stays_as_near_as_the_published_run(open_instructcir, published):
    ours = together(open_instructcir(dtype="bfloat16"), queries())

    assert (ours - published["query_batch.emb_bf16"]).abs().max() <= 2e-2


@pytest.mark.parametrize("together_or_alone", ["together", "alone"])
def test_long_rows_rotate_by_the_long_list_and_short_ones_beside_them_do_not(
    together_or_alone, short_trained, open_instructcir, published
):
    embedder = open_instructcir(short_trained)
    alone = torch.cat([embedder.encode([query]) for query in queries()])
    ours = alone if together_or_alone == "alone" else together(embedder, queries())

    assert (ours - published["query_singles_long.emb"]).abs().max() <= TOLERANCE
    assert (ours - published["query_singles.emb"]).abs().amax(1).min() > 0.01


def test_by_batch_a_long_row_moves_the_short_ones_as_published(short_trained, open_instructcir, published):
    batch = together(open_instructcir(short_trained, longrope_by="batch", padding_side="left"), queries())

    moved = (batch - published["query_singles_long.emb"]).abs().amax(1)
    assert moved.tolist() == pytest.approx(RECORD["longrope"]["batch_vs_single"], abs=TOLERANCE)


def test_a_template_without_beginning_of_text_loses_no_letter(tmp_path, open_instructcir):
    directory = shutil.copytree(ROOT / "ckpt", tmp_path / "ckpt")
    for file in (ROOT / "tok_phi35").iterdir():
        shutil.copy(file, directory)
    embedder = open_instructcir(directory)

    (row,) = embedder.prepare(gallery()[:1], "target")

    text = embedder.backbone.preprocessor.tokenizer.decode(row.ids)
    assert text.replace("<image>", "").startswith("<|user|>")
    assert text.endswith("Describe this image in one word:<|end|><|assistant|>")


def test_a_saved_model_is_a_llava_of_transformers_with_the_same_bits(tmp_path, open_instructcir):
    embedder = open_instructcir()
    embedder.save(tmp_path / "saved")

    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    stock = AutoModel.from_pretrained(tmp_path / "saved")

    assert isinstance(stock, LlavaModel)
    assert json.loads((tmp_path / "saved/config.json").read_text())["model_type"] == "llava"
    weights = dict(stock.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in embedder.backbone.model.named_parameters())
    assert torch.equal(together(again, queries()), together(embedder, queries()))


def test_the_projection_that_nothing_uses_may_be_there_and_any_other_weight_may_not(tmp_path, open_instructcir):
    directory = shutil.copytree(ROOT / "ckpt", tmp_path / "ckpt")
    weights = load_file(directory / "model.safetensors")
    assert any(name.startswith("ret_proj.") for name in weights)

    save_file(weights | {"other_proj.weight": torch.zeros(2)}, directory / "model.safetensors", {"format": "pt"})

    with pytest.raises(InputError, match=r"got 1 unexpected: other_proj\.weight"):
        open_instructcir(directory)


def test_a_missing_projector_is_named(tmp_path, open_instructcir):
    directory = shutil.copytree(ROOT / "ckpt", tmp_path / "ckpt")
    weights = load_file(directory / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "linear_1" not in name}
    save_file(kept, directory / "model.safetensors", {"format": "pt"})

    with pytest.raises(InputError, match=r"got 2 missing: multi_modal_projector\.linear_1\.bias, .*linear_1\.weight"):
        open_instructcir(directory)
