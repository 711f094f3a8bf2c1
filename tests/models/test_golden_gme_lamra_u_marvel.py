"""Every embedding that VLM2Vec's wrappers of GME and LamRA, and U-MARVEL's own code, were seen to compute."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed import Embedder, Image, Item
from mmembed.models.profiles import load_profile
from mmembed.models.sequence import Hidden, collate
from mmembed.models.settings import BeforeToken, MeanToken, Request
from tests.cases import GOLDEN

WRAPPED, U_MARVEL = GOLDEN / "vlm2vec/golden/gme_lamra", GOLDEN / "umarvel"
WRAPPED_CASES = json.loads((WRAPPED / "golden.json").read_text())
RECORD = json.loads((U_MARVEL / "embed.json").read_text())
CASES = {name: case for name, case in RECORD["cases"].items() if not name.startswith("train/")}
TEXTS = {name: case["texts"] for name, case in CASES.items() if "texts" in case}
PICTURES = GOLDEN / "vlm2vec/inputs/images"
HEADER, FOOTER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<emb>."


@cache
def wrapped(name):
    return Embedder.from_pretrained(GOLDEN / "vlm2vec/qwen2_vl", profile=name, device="cpu")


@cache
def u_marvel(prompt="p0", pooler=None, **backbone):
    settings = load_profile("u_marvel").embedder
    style = settings.prompt if prompt == "p0" else replace(settings.prompt, request=Request())
    backbone = replace(settings.backbone, path=str(U_MARVEL / "ckpt"), **backbone)
    return Embedder(replace(settings, backbone=backbone, prompt=style, pooler=pooler or settings.pooler)).eval()


def lines(name):
    return [json.loads(line) for line in (U_MARVEL / name).read_text().splitlines()]


def number(name, places):
    dataset, row = name.split(":")
    return int(dataset) * places + int(row)


@cache
def u_marvel_items(side):
    """The records of the small M-BEIR by number, their words as the published code had formatted them."""
    query = ("query.jsonl", "qid", "query_img_path", 500_000)
    file, key, path, places = query if side == "q" else ("cand.jsonl", "did", "img_path", 10_000_000)
    items = {}
    for record, prompt in zip(lines(file), TEXTS[f"p1/{side}/batch/eager"], strict=True):
        said = prompt.split(HEADER)[1].split(FOOTER)[0].split("<|vision_end|>")[-1]
        marked = re.fullmatch(r"<instruction_start>(.*)<instruction_end>(.*)", said, re.DOTALL)
        instruction, text = marked.groups() if marked else (None, said)
        picture = Image(PICTURES / Path(record[path]).name) if record[path] else None
        items[number(record[key], places)] = chat_item(picture, text, instruction)
    return items


def chat_item(picture, text, instruction=None):
    # a full stop that follows the instruction without a space can only be written in order
    if instruction is not None and not text.startswith(" "):
        return Item((picture, text), instruction)
    text = text.removeprefix(" ") if instruction is not None else text
    named = {"image": [picture] if picture else [], "text": text or None}
    return Item.of({name: value for name, value in named.items() if value}, instruction)


def u_marvel_model(name):
    """The profile, changed as the case was: prompt, kernel, attention, pooler."""
    prompt, _, rest = name.split("/", 2)
    case, choices = CASES[name], {"attention": "eager" if rest.endswith("eager") else "sdpa"}
    if not case["bidirectional_flag"]:
        choices["attention_policy"] = "causal"
    elif choices["attention"] == "sdpa":
        choices["unpadded_causal"] = True
    if rest.endswith("bf16"):
        choices["dtype"] = "bfloat16"
    pooler = MeanToken() if case["mean_pooling"] else BeforeToken()
    if "nomask" in name:
        pooler = MeanToken(drop_on_query=())
    return u_marvel(prompt, pooler, **choices)


def u_marvel_rows(name):
    side = name.split("/")[1]
    items = [u_marvel_items(side)[i] for i in CASES[name]["ids"]]
    return u_marvel_model(name).prepare(items, {"q": "query", "c": "target"}[side])


def array(name):
    with np.load(U_MARVEL / "embed.npz") as arrays:
        return arrays[name]


@pytest.mark.parametrize("name", WRAPPED_CASES)
def test_wrapped_models_read_the_same_tokens_and_give_the_same_embeddings(name, sped):
    case, model = WRAPPED_CASES[name], sped(wrapped(name.split("/")[0]))
    pictures = [Image(PICTURES / f"{image}.png") if image else None for image in case["images"]]
    items = [chat_item(picture, text) for picture, text in zip(pictures, case["texts"], strict=True)]

    rows = model.prepare(items, "query")

    for row, prompt, ids in zip(rows, case["prompts"], case["input_ids"], strict=True):
        assert row.ids.tolist() == model.backbone.checkpoint.tokenizer(prompt).input_ids
        assert row.ids.tolist() == ids[-len(row.ids) :]
    assert [m.grid for row in rows for m in row.media] == [tuple(grid) for grid in case["image_grid_thw"] or []]
    with np.load(WRAPPED / "golden.npz") as arrays:
        assert np.abs(model.encode(items).numpy() - arrays[name]).max() <= 1e-5


def test_all_cases_are_found():
    assert (len(WRAPPED_CASES), len(CASES), len(TEXTS)) == (8, 95, 18)


@pytest.mark.parametrize("name", [name for name in TEXTS if name in CASES])
def test_u_marvel_reads_the_same_tokens_and_pools_the_same_ones(name):
    rows = u_marvel_rows(name)
    batch = collate(rows)
    hidden = Hidden(torch.zeros(len(batch.ids), 1), batch.ids, batch.lengths, batch.kinds, batch.is_query)

    real = array(f"{name}/attention_mask").astype(bool)
    assert np.array_equal(batch.ids.numpy(), array(f"{name}/input_ids")[real])
    assert np.array_equal(u_marvel_model(name).pooler.kept(hidden).numpy(), array(f"{name}/pooled")[real].astype(bool))
    grids = [m.grid for row in rows for m in row.media]
    assert grids == [tuple(grid) for grid in CASES[name].get("image_grid_thw") or []]


@pytest.mark.parametrize("name", CASES)
def test_u_marvel_gives_the_same_embeddings(name, sped):
    tolerance = 2e-2 if name.endswith("bf16") else 1e-5

    with torch.no_grad():
        ours = sped(u_marvel_model(name))(collate(u_marvel_rows(name)))

    assert np.abs(ours.numpy() - array(f"{name}/emb")).max() <= tolerance


@pytest.mark.parametrize("side", ["q", "c"])
def test_the_profile_of_u_marvel_is_free_of_the_published_fault_whatever_rows_share_a_batch(side):
    """Its code is causal under sdpa in a batch without padding; eager attention, and any padding, are as meant."""
    items, meant = u_marvel_items(side), "eager" if side == "q" else "sdpa"
    model = Embedder.from_pretrained(U_MARVEL / "ckpt", profile="u_marvel", device="cpu")

    ours = model.encode(list(items.values()), side={"q": "query", "c": "target"}[side]).numpy()

    assert np.abs(ours - array(f"p0/{side}/batch/{meant}/emb")).max() <= 1e-5
    assert np.abs(ours[:1] - array(f"p0/{side}/single0/sdpa/emb")).max() > 1e-2


def test_the_added_tokens_of_u_marvel_stand_at_their_recorded_ids():
    model = u_marvel().backbone

    ids = {token: model.token_id(token) for token in RECORD["special_tokens"]}

    assert ids == {token: facts["id"] for token, facts in RECORD["special_tokens"].items()}
    assert model.model.get_input_embeddings().num_embeddings == 417
