"""Every published checkpoint opens by its name on a small copy of its layout, and is written to as published."""

import re
import shutil
from dataclasses import replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
import torch

from mmembed import Embedder, Item
from mmembed.models.profiles import FACTS, load_profile, load_released, profile_names, released_names, released_row
from mmembed.models.prompts import Kind
from mmembed.models.sequence import KEPT_FREE
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import dump_settings, load_yaml, read_settings
from tests.models.backbones.dual_encoder.transformers_layout import by_transformers
from tests.models.profiles.released import CASES, OPTIONAL, publish, scratch_of

STRINGS = Path(__file__).parents[2] / "golden/profiles"
MEDIA = (Kind.IMAGE, Kind.VIDEO)
ARCHITECTURES = {name: load_released(name)[0].architecture for name in released_names()}
DUAL = ("open_clip", "clip", "siglip")
ENCODED = ("composed query", "text target", "clip target")
ODD = (
    *("Sony/VIRTUE-2B-SCaR", "TIGER-Lab/VLM2Vec-LoRA", "BAAI/BGE-VL-MLLM-S1", "BAAI/BGE-VL-base"),
    *("TencentBAC/U-MARVEL-Qwen3VL-4B-Instruct", "uta-smile/instructcir_llava_phi35_clip224_lp"),
)
"""Those of which something else than a checkpoint of transformers is saved, or another one than was opened."""


@cache
def strings_of(name):
    """The published strings of a checkpoint by case: its profile's, and where it differs its own."""
    said = load_yaml(STRINGS / f"{released_names()[name]}.yaml")
    return said["strings"] | said.get("checkpoints", {}).get(name, {})


def written(model, case):
    """What the model is given for a case: the string with each medium's word once, and the tokens of the words."""
    given, side = CASES[case]
    (row,) = model.prepare([Item.of(given)], side)
    tokens = [(token, kind in MEDIA) for token, kind in zip(row.ids.tolist(), row.kinds, strict=True)]
    tokens = [(token, is_medium) for token, is_medium in tokens if token != KEPT_FREE]
    preprocessor, string = model.backbone.preprocessor, ""
    for is_medium, run in groupby(tokens, key=itemgetter(1)):
        ids = [token for token, _ in run]
        string += preprocessor.words[ids[0]] if is_medium else preprocessor.tokenizer.decode(ids)
    return string, [token for token, is_medium in tokens if not is_medium]


def tokens_of(model, string):
    """The tokens of a string as its tokenizer reads it whole, or between pictures that are no tokens (Phi-3.5)."""
    preprocessor = model.backbone.preprocessor
    words = set(preprocessor.words.values())
    is_cut = not words <= preprocessor.tokenizer.get_vocab().keys()
    pieces = re.split("|".join(map(re.escape, words)), string) if is_cut else [string]
    read = [preprocessor.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    return [token for ids in read for token in ids if is_cut or token not in preprocessor.words]


def quick(name, model):
    """The model, or one that makes of every picture a smaller square."""
    media = getattr(model.settings.backbone, "media", None)
    return Embedder.from_pretrained(name, media=replace(media, square=56)) if media and media.square else model


@pytest.mark.parametrize("profile", sorted({*released_names().values()}))
def test_a_profile_with_checkpoints_names_the_source_of_every_fact(profile):
    assert set(load_profile(profile).sources) == set(FACTS)


@pytest.mark.parametrize("name", [name for name, kind in ARCHITECTURES.items() if kind not in DUAL])
def test_a_checkpoint_opens_by_its_name_and_is_written_to_as_published(name, hub_cache, tmp_path):
    publish(hub_cache, name, tmp_path / "made")

    model = Embedder.from_pretrained(name)

    strings = strings_of(name)
    assert (set(CASES) - OPTIONAL) <= set(strings)
    ours = {case: written(model, case) for case in strings}
    assert {case: string for case, (string, _) in ours.items()} == strings
    assert {case: ids for case, (_, ids) in ours.items()} == {case: tokens_of(model, strings[case]) for case in strings}
    vectors = quick(name, model).encode([CASES[case][0] for case in ENCODED if case in strings])
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize("name", [name for name, kind in ARCHITECTURES.items() if kind in ("clip", "siglip")])
def test_a_dual_encoder_in_transformers_layout_opens_by_its_name_and_embeds_as_there(name, hub_cache, tmp_path):
    publish(hub_cache, name, tmp_path / "made")

    model = Embedder.from_pretrained(name)

    items = [CASES[case][0] for case in ("text target", "picture target")]
    theirs = by_transformers(tmp_path / "made/whole", [items[0]["text"]], [items[1]["image"]])
    assert torch.allclose(model.encode(items), theirs, atol=1e-6, rtol=0)
    assert torch.isfinite(model.encode(CASES["composed query"][0])).all()


@pytest.mark.parametrize("name", [name for name, kind in ARCHITECTURES.items() if kind == "open_clip"])
def test_a_dual_encoder_opens_as_its_row_says(name, tmp_path):
    scratch_of(*load_released(name)).save(tmp_path / "copy")
    (tmp_path / "copy/embedder.yaml").unlink()

    model = Embedder.from_pretrained(tmp_path / "copy", profile=name)

    assert model.encode(["a red dress"]).shape == (1, model.width)


@pytest.mark.parametrize("name", ODD)
def test_a_saved_copy_embeds_as_the_published_checkpoint(name, hub_cache, tmp_path):
    publish(hub_cache, name, tmp_path / "made")
    items = [CASES[case][0] for case in ("composed query", "text target")]
    model = quick(name, Embedder.from_pretrained(name))

    model.save(tmp_path / "saved")

    again = Embedder.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.encode(items), model.encode(items))
    assert again.settings.prompt == model.settings.prompt
    assert again.settings.pooler == model.settings.pooler


def test_what_the_rows_say_is_read_back_as_it_is_saved():
    # one of those that say the same
    rows = {(profile, str(released_row(name).settings)): name for name, profile in released_names().items()}
    for name in rows.values():
        settings = load_released(name)[1]
        assert read_settings(EmbedderSettings, dump_settings(settings)) == settings, name


def test_every_profile_but_those_for_any_model_has_checkpoints():
    without = {name for name in profile_names() if not load_profile(name).checkpoints}

    # lamra embeds the checkpoints of lamra_ret as another evaluation did
    assert without <= {"chat", "clip", "lincir", "pic2word", "searle", "lamra"}


def test_of_whole_weights_and_an_adapter_in_one_repository_the_kind_of_the_row_is_opened(hub_cache, tmp_path):
    name = "TIGER-Lab/VLM2Vec-Qwen2VL-7B"
    publish(hub_cache, name, tmp_path / "made")
    apart = Embedder.from_pretrained(name)
    (repository,) = hub_cache.glob(f"models--{name.replace('/', '--')}/snapshots/*")
    shutil.copy(tmp_path / "made/whole/model.safetensors", repository)

    model = Embedder.from_pretrained(name)

    assert model.has_adapter
    assert model.settings == apart.settings
