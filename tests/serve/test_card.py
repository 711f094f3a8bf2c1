"""A model card: front matter that the Hub reads, the tokenizer's strings, scores with protocols, code that runs."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.settings import (
    ChatPrompt,
    EmbedderSettings,
    LatentAttention,
    Lora,
    QwenVL,
    RawPrompt,
    TextRegions,
)
from mmembed.recipe import Recipe
from mmembed.serve.card import check_card, model_card
from mmembed.serve.export import export_model
from mmembed.serve.licences import LICENCES, check_licence, licence_of, licence_warning
from mmembed.settings import dump_settings, dump_yaml, read_settings
from tests.cases import TINY, draw, small_embedder
from tests.families import family_embedder


@pytest.fixture(scope="module")
def chat():
    return small_embedder(prompt=ChatPrompt(generation_prompt=True)).eval()


def card_of(model, **choices):
    return model_card(model, "me/model", **({"licence": "mit"} | choices))


def section(card, title):
    return re.split(r"^## ", card.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def code_of(card, library, language="python"):
    part = card.split(f"### {library}\n", 1)[1].split("\n### ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)\n```", part, re.S)


def scores_json(path, model, **protocol):
    row = {
        "metric": "hit@1", "score": 0.5, "chance": 0.25, "blind": None, "queries": 1200, "corpus": 40, "part": None,
        "protocol_id": "abcdef012345",
    }  # fmt: skip
    scores = {
        "protocol": {"benchmark": "fruits", "model": "x", "quick": None, "miniature": False, "chosen": None,
                     "tasks": {"pears": {"revision": "0123456789abcdef"}}} | protocol,
        "tasks": {"pears": row, "plums": row | {"part": "half of the pictures"}}, "failed": {}, "partial": False,
        "means": {"overall": {"mean": 0.5, "tasks": 1, "of": 2}}, "about": {"settings": dump_settings(model.settings)},
    }  # fmt: skip
    path.write_text(json.dumps(scores))
    return path


def test_the_hub_reads_the_front_matter(chat, tmp_path):
    scores = scores_json(tmp_path / "scores.json", chat)

    data = ModelCard(card_of(chat, scores=[scores], datasets=["me/pairs"])).data

    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "mmembed", "feature-extraction")
    assert {"mmembed", "multimodal-embedding", "video-embedding"} <= set(data.tags)
    assert (data.datasets, data.base_model) == (["me/pairs"], None)
    (result,) = data.eval_results
    assert (result.dataset_config, result.metric_type, result.metric_value) == ("pears", "hit@1", 0.5)
    assert result.metric_args == {"protocol_id": "abcdef012345"}


def test_the_prompts_are_the_strings_that_are_tokenized(chat):
    said = section(card_of(chat), "Prompts")

    shown = dict(re.findall(r"- (.*?)\n\n  ```json\n  (.*?)\n  ```", said))
    assert json.loads(shown["image and text, with an instruction"]) == (
        "<|im_start|>system\nINSTRUCTION<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>TEXT"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert json.loads(shown["video"]).count("<|video_pad|>") >= 1
    tokens = chat.backbone.checkpoint.tokenizer(json.loads(shown["text"])).input_ids
    assert tokens == chat.prepare([chat._item(0, "TEXT", None)], "query")[0].ids.tolist()


def test_a_side_that_is_written_otherwise_is_shown_by_itself():
    said = section(card_of(family_embedder("clip")), "Prompts")

    assert '- text\n\n  ```json\n  "TEXT"' in said
    assert '"INSTRUCTION TEXT"' in said


def test_how_it_embeds_is_said(chat):
    said = section(card_of(chat), "How it embeds")

    assert f"| width | {chat.width} numbers, unit length |" in said
    assert "| positions | mrope |" in said
    assert "| attention | causal |" in said
    assert "max_pixels 1003520" in said
    assert "| pooling | LastToken |" in said


def test_training_is_that_of_the_recipe(chat, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(read_settings(Recipe, yaml.safe_load(TINY), where="tiny")))

    said = section(card_of(chat, recipe=recipe), "Training")

    assert "Recipe `tiny`, seed 0, all weights that the stages do not freeze." in said
    assert "### Stage `second`" in said
    assert "| image | demo/pair_image.jsonl | 2 | all |" in said
    assert re.search(r"3 steps, Contrastive, temperature 0.02.* batch 6, block 2, learning rate 0.001", said)


def test_scores_come_with_chance_protocol_and_what_makes_them_less(chat, tmp_path):
    said = section(card_of(chat, scores=[scores_json(tmp_path / "scores.json", chat)]), "Scores")

    assert "| pears | hit@1 | 50.0 | 25.0 | – | 1,200 | 40 | `abcdef012345` | `0123456789ab` |" in said  # noqa: RUF001
    assert "- 1 task on a part of its data, which no mean counts: plums: half of the pictures" in said
    assert "Mean" not in said


def test_scores_of_a_miniature_are_no_result_of_the_benchmark(chat, tmp_path):
    card = card_of(chat, scores=[scores_json(tmp_path / "scores.json", chat, miniature=True)])

    assert ModelCard(card).data.eval_results is None
    assert "- miniature: drawn data, which say nothing of a model" in section(card, "Scores")


def test_scores_of_a_model_that_embeds_otherwise_are_refused(chat, tmp_path):
    scores = scores_json(tmp_path / "scores.json", small_embedder(prompt=RawPrompt()))

    with pytest.raises(InputError, match=r"expected scores of a model that embeds as this one, got another prompt"):
        card_of(chat, scores=[scores])


@pytest.mark.parametrize("kind", ["chat", "raw", "text"])
def test_the_code_of_a_card_runs(tmp_path, monkeypatch, capsys, chat, kind):
    model = {"chat": lambda: chat, "raw": lambda: small_embedder(prompt=RawPrompt(suffix="<|im_end|>")),
             "text": lambda: family_embedder("qwen2", prompt=RawPrompt())}[kind]()  # fmt: skip
    model.save(tmp_path / "me/model")
    draw(60, 60).save(tmp_path / "circle.png")
    monkeypatch.chdir(tmp_path)
    card = card_of(model)

    (ours,) = code_of(card, "mmembed")
    exec(compile(ours, "card", "exec"), {})
    (export,) = code_of(card, "sentence-transformers", "bash")
    words = export.split()
    options = dict(zip(words[2::2], words[3::2], strict=True))
    export_model(Embedder.from_pretrained("me/model", device="cpu"), "st", tmp_path / "exported")
    (theirs,) = code_of(card, "sentence-transformers")
    exec(compile(theirs, "card", "exec"), {})

    assert words[:2] == ["python", "scripts/export.py"]
    assert options == {"--model": "me/model", "--to": "st", "--output": "exported"}
    here, there = re.findall(r"tensor\(\[\[(.*?)\]\]", capsys.readouterr().out)
    assert float(here) == pytest.approx(float(there), abs=2e-4)


def test_an_export_is_used_without_another_export(chat):
    st, vllm = (card_of(chat, exported=to, notes=["frames are yours to thin out"]) for to in ("st", "vllm"))

    assert 'SentenceTransformer("me/model")' in code_of(st, "sentence-transformers")[0]
    assert "scripts/export.py" not in st + vllm
    assert "mmembed import" not in st + vllm
    assert code_of(vllm, "vLLM", "bash")[0] == "vllm serve me/model --runner pooling --served-model-name NAME"
    assert "- frames are yours to thin out" in st
    assert ModelCard(st).data.library_name == "sentence-transformers"


def test_what_a_library_cannot_hold_is_said_instead_of_code():
    model = small_embedder(pooler=LatentAttention(latents=2, heads=2))

    card = card_of(model)

    assert "It cannot hold this model: expected LastToken or MeanToken" in card
    assert not code_of(card, "sentence-transformers")
    assert not code_of(card, "vLLM", "bash")


def test_what_an_export_leaves_behind_is_said():
    card = card_of(small_embedder(regions=TextRegions()))

    assert "An export leaves the region encoder behind." in card
    assert code_of(card, "sentence-transformers", "bash")[0].endswith("--without-regions")
    assert "region-prompts" in ModelCard(card).data.tags


def test_a_card_of_an_export_tells_nothing_of_what_was_left_behind(tmp_path):
    model = small_embedder(regions=TextRegions())
    exported = export_model(model, "hf", tmp_path / "hf", without_regions=True, without_video=True)
    left = json.loads((exported.directory / "mmembed_export.json").read_text())["left"]

    card = card_of(model, exported="hf", left=left)

    assert left == ["regions", "video"]
    assert "Embeds text and image in one space" in card
    assert not {"region-prompts", "video-embedding"} & set(ModelCard(card).data.tags)
    assert "| clips |" not in card
    assert "| regions | none |" in card
    assert "video" not in section(card, "Prompts")


def test_scores_of_another_name_are_refused(chat, tmp_path):
    (tmp_path / "products.csv").write_text("file;title\n")

    with pytest.raises(
        InputError, match=r"products.csv: expected a file scores.json of an evaluation, got another name"
    ):
        card_of(chat, scores=[tmp_path / "products.csv"])


def test_an_adapter_names_its_base(tmp_path, chat, monkeypatch):
    chat.save(tmp_path / "me/base")
    monkeypatch.chdir(tmp_path)
    adapted = Embedder(EmbedderSettings(QwenVL(path="me/base", min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4)))
    assert ModelCard(card_of(adapted)).data.base_model is None
    # now it could lie on the Hub only
    (tmp_path / "me").rename(tmp_path / "away")

    card = card_of(adapted)
    data, of_export = ModelCard(card).data, ModelCard(card_of(adapted, exported="st")).data

    assert "| base | me/base |" in card
    assert (data.base_model, data.base_model_relation) == ("me/base", "adapter")
    assert (of_export.base_model, of_export.base_model_relation) == ("me/base", "finetune")


def test_a_model_of_the_hub_is_named_where_it_is_given_on(tmp_path, monkeypatch):
    small_embedder().save(tmp_path / "me/base")
    monkeypatch.chdir(tmp_path)
    opened = Embedder.from_pretrained("me/base", device="cpu")
    (tmp_path / "me").rename(tmp_path / "away")

    card = card_of(opened, exported="st")

    assert ModelCard(card).data.base_model == "me/base"
    assert "Its weights come from [me/base](https://huggingface.co/me/base)." in card


def test_an_instruction_is_written_before_a_bare_text_as_the_model_has_it():
    card = card_of(family_embedder("qwen2", prompt=RawPrompt("\n")))

    assert 'prompt="Find the picture.\\n")' in code_of(card, "sentence-transformers")[0]
    assert '"input": ["Find the picture.\\na red circle"]' in code_of(card, "vLLM", "bash")[-1]


def test_a_missing_licence_is_asked_for_and_that_of_the_base_suggested():
    with pytest.raises(InputError, match=r"licence: expected under what others may use the model, got none; name one"):
        check_licence(None)
    with pytest.raises(InputError, match=r"its base VLM2Vec/VLM2Vec-V2.0 is under apache-2.0: licence apache-2.0"):
        check_licence(None, "VLM2Vec/VLM2Vec-V2.0")


@pytest.mark.parametrize(("given", "meant"), [("apache2.0", "apache-2.0"), ("cc-by-nc4.0", "cc-by-nc-4.0")])
def test_an_unknown_licence_is_answered_with_the_nearest(given, meant):
    with pytest.raises(InputError, match=f"got '{given}'; did you mean '{meant}'"):
        check_licence(given)
    assert check_licence(meant.upper()) == meant
    assert meant in LICENCES


def test_a_base_for_non_commercial_use_is_warned_of(tmp_path, monkeypatch):
    folder = tmp_path / "models--me--base"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("a" * 40) / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    assert licence_of("me/base") == "cc-by-nc-4.0"
    assert licence_warning("mit", "me/base") == (
        "Its base me/base is under cc-by-nc-4.0, for non-commercial use only, which mit cannot undo"
    )
    assert licence_warning("cc-by-nc-4.0", "me/base") is None
    assert licence_warning("mit", "me/unknown") is None
    assert "see whether that lets you" in str(licence_warning("mit", "VLM2Vec/VLM2Vec-V2.0"))


def test_a_card_that_the_hub_does_not_read_is_refused(chat):
    card = card_of(chat)

    check_card(card)
    with pytest.raises(InputError, match="model card: expected front matter that the Hub reads"):
        check_card(card.replace("license: mit", "license: mit\n- x"))


def test_a_recipe_that_is_none_of_a_run_is_refused(chat, tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: 1\n")
    (tmp_path / "own.yaml").write_text(TINY)

    for name, got in (("recipe", "something else"), ("own", "something else"), ("none", "no such file")):
        path = tmp_path / f"{name}.yaml"
        with pytest.raises(InputError, match=got):
            card_of(chat, recipe=path)
