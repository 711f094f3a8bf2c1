"""A model is given to others whole, with its card, in one commit, or not at all; and what is no part of it stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.settings import EmbedderSettings, LatentAttention, Lora, QwenVL, RawPrompt, Sam2Regions
from mmembed.recipe import Recipe
from mmembed.serve.export import export_model
from mmembed.serve.hub import push_to_hub
from mmembed.serve.pushable import pushable
from mmembed.settings import dump_yaml, read_settings
from scripts.push import main
from tests.cases import TINY, small_embedder
from tests.families import family_embedder, perturb
from tests.models_hub import go_offline

ROOT = Path(__file__).parents[2]
ITEMS = ["a red dress", {"text": "blue", "instruction": "Find it."}]
FEW = LatentAttention(latents=2, heads=2)
# the Hub's client says it of itself
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def model():
    return small_embedder(pooler=FEW).eval()


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def run_of(folder, model, state="done"):
    """The folder of a run with its model."""
    model.save(folder / "final")
    (folder / "run.json").write_text(json.dumps({"state": state}))
    (folder / "recipe.yaml").write_text(TINY)
    return folder


def test_what_is_pushed_opens_by_its_name_with_equal_vectors(model_hub, saved, model, capsys):
    assert main(["--model", str(saved), "--repo", "me/model", "--licence", "mit", "--private"]) == 0

    commit = model_hub.branches["me/model"]["main"]
    opened = Embedder.from_pretrained("me/model", device="cpu", revision=commit)
    assert torch.equal(opened.encode(ITEMS), model.encode(ITEMS))
    assert f"from_pretrained('me/model', revision='{commit}')" in capsys.readouterr().out
    assert model_hub.private["me/model"]
    assert ModelCard(model_hub.files("me/model")["README.md"].decode()).data.license == "mit"
    assert set(model_hub.files("me/model")) - {"README.md", ".gitattributes"} == {p.name for p in saved.iterdir()}
    assert "README.md" not in {p.name for p in saved.iterdir()}


def test_a_second_push_is_one_commit_that_takes_stale_parts_away(model_hub, saved, model, tmp_path):
    first = push_to_hub(saved, "me/model", licence="mit")
    model_hub.commits_of["me/model"][first.commit]["picture.png"] = b"of the owner"
    requests = len(model_hub.asked)

    second = push_to_hub(small_embedder(), "me/model", licence="mit")

    assert len([path for verb, path in model_hub.asked[requests:] if "/commit/" in path]) == 1
    assert "pooler.safetensors" in model_hub.commits_of["me/model"][first.commit]
    assert "pooler.safetensors" not in model_hub.files("me/model")
    assert model_hub.files("me/model")["picture.png"] == b"of the owner"
    old = Embedder.from_pretrained("me/model", device="cpu", revision=first.commit)
    assert torch.equal(old.encode(ITEMS), model.encode(ITEMS))
    assert second.url.endswith(second.commit)


def test_a_branch_is_made_and_main_stays(model_hub, saved):
    first = push_to_hub(saved, "me/model", licence="mit")
    push_to_hub(small_embedder(), "me/model", licence="mit", branch="next")

    assert model_hub.branches["me/model"]["main"] == first.commit
    assert "pooler.safetensors" not in model_hub.files("me/model", "next")


def test_an_adapter_is_pushed_and_opens_on_its_base(model_hub, tmp_path):
    push_to_hub(small_embedder(), "me/base", licence="cc-by-nc-4.0")
    on_base = EmbedderSettings(QwenVL(path="me/base", min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4, dropout=0.0))
    adapted = Embedder(on_base).eval()
    perturb(adapted)

    with pytest.raises(InputError, match=r"its base me/base is under cc-by-nc-4.0: licence cc-by-nc-4.0"):
        push_to_hub(adapted, "me/adapter")
    pushed = push_to_hub(adapted, "me/adapter", licence="mit")

    assert pushed.warnings == (
        "Its base me/base is under cc-by-nc-4.0, for non-commercial use only, which mit cannot undo",
    )
    assert "adapter/adapter_model.safetensors" in model_hub.files("me/adapter")
    opened = Embedder.from_pretrained("me/adapter", device="cpu")
    assert torch.equal(opened.encode(ITEMS), adapted.encode(ITEMS))


def test_a_run_that_is_done_brings_its_recipe(model_hub, model, tmp_path):
    run = run_of(tmp_path / "run", small_embedder())

    for path in (run, run / "final"):
        found = pushable(path)
        assert (found.folder, found.recipe) == (run / "final", run / "recipe.yaml")


def test_an_export_is_pushed_with_the_card_of_what_it_was_made_of(model_hub, tmp_path):
    small_embedder().save(tmp_path / "model")
    export_model(Embedder.from_pretrained(tmp_path / "model", device="cpu"), "st", tmp_path / "st")

    push_to_hub(tmp_path / "st", "you/st", licence="mit", of=str(tmp_path / "model"))
    push_to_hub(tmp_path / "st", "me/st", licence="mit")

    files = model_hub.files("me/st")
    assert {"modules.json", "1_Pooling/config.json", "mmembed_export.json"} <= files.keys()
    assert 'SentenceTransformer("me/st")' in files["README.md"].decode()
    assert files["README.md"].decode().replace("me/st", "you/st") == model_hub.files("you/st")["README.md"].decode()
    # where it lay on this machine is nobody else's
    assert str(tmp_path) in (tmp_path / "st/mmembed_export.json").read_text()
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert json.loads(files["mmembed_export.json"])["to"] == "st"


@pytest.mark.parametrize("as_adapter", [False, True])
def test_an_export_of_a_run_has_its_training_on_its_card(model_hub, tmp_path, as_adapter):
    model = small_embedder()
    if as_adapter:
        model.save(tmp_path / "base")
        path = str(tmp_path / "base")
        model = Embedder(EmbedderSettings(QwenVL(path=path, min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4)))
    run = run_of(tmp_path / "run", model)
    (run / "recipe.yaml").write_text(dump_yaml(read_settings(Recipe, yaml.safe_load(TINY), where="tiny")))
    opened = Embedder.from_pretrained(run / "final", device="cpu")
    export_model(opened, "hf", tmp_path / "hf", without_video=True)

    push_to_hub(tmp_path / "hf", "me/hf", licence="mit")

    assert "Recipe `tiny`, seed 0" in model_hub.files("me/hf")["README.md"].decode()


def test_what_an_export_was_made_of_is_asked_for_where_it_is_gone(model_hub, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_embedder().save(tmp_path / "model")
    export_model(Embedder.from_pretrained("model", device="cpu"), "hf", tmp_path / "gone")
    export_model(family_embedder("qwen2").eval(), "hf", tmp_path / "scratch")
    (tmp_path / "model").rename(tmp_path / "moved")
    call = ["--repo", "me/hf", "--licence", "mit"]

    for folder, got in (("gone", str(tmp_path / "model")), ("scratch", "no word of it in its record")):
        assert main(["--model", folder, *call]) == 2
        said = capsys.readouterr().err
        assert f"{folder}: expected the embedder that this export was made of" in said
        assert got in said
        assert "--of DIR_OR_ID" in said
    assert main(["--model", "gone", *call, "--of", "moved", "--dry-run"]) == 0


def test_a_dry_run_lists_the_files_and_shows_the_card(model_hub, saved, capsys, tmp_path):
    command = ["--model", str(saved), "--repo", "me/model", "--licence", "mit", "--dry-run"]

    assert main(command) == 0
    shown = capsys.readouterr().out
    assert main([*command, "--card", str(tmp_path / "card.md")]) == 0

    size = (saved / "model.safetensors").stat().st_size
    assert f"{size:>15,}  model.safetensors" in shown
    assert "files would go to me/model" in shown
    assert shown.endswith((tmp_path / "card.md").read_text() + "\n")
    assert not model_hub.commits_of


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "trainer_state.json", "checkpoints/step-1/model.safetensors", "adapter/x.bin", ".env"]
)
def test_what_is_no_part_of_a_model_is_not_pushed(saved, name):
    (saved / name).parent.mkdir(parents=True, exist_ok=True)
    (saved / name).write_bytes(b"x")

    with pytest.raises(InputError, match=f"expected the files of a model alone, got {name}"):
        pushable(saved)


@pytest.mark.parametrize("state", ["training", "done"])
def test_a_run_without_its_last_weights_is_not_pushed(model, tmp_path, state):
    run = run_of(tmp_path / "run", model, state)
    if state == "done":
        (run / "final/embedder.yaml").unlink()

    for path in (run, run / "final"):
        with pytest.raises(InputError, match=f"expected a run that is done, with its model in final.*'{state}'"):
            pushable(path)


def test_a_folder_without_a_model_is_not_pushed(tmp_path):
    for path, got in ((tmp_path, "neither"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=f"expected a saved embedder with embedder.yaml.*got {got}"):
            pushable(path)


def test_an_adapter_on_a_base_of_this_machine_is_not_pushed(saved, tmp_path):
    adapted = Embedder(EmbedderSettings(QwenVL(path=str(saved), min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4)))
    adapted.save(tmp_path / "adapter")

    with pytest.raises(InputError, match=r"embedder.yaml: backbone.*path: expected a Hub id.*merge_adapter"):
        pushable(tmp_path / "adapter")
    settings = tmp_path / "adapter/embedder.yaml"
    settings.write_text(settings.read_text().replace(str(saved), "me/base"))
    with pytest.raises(InputError, match=r"base_model_name_or_path: expected a Hub id"):
        pushable(tmp_path / "adapter")


def test_a_part_of_this_machine_is_not_pushed(tmp_path):
    regions = Sam2Regions(checkpoint=str(ROOT / "tests/golden/virtue/sam2_tiny/native"))
    small_embedder(regions=regions).save(tmp_path / "model")

    with pytest.raises(InputError, match=r"regions.*checkpoint: expected a Hub id.*name it by its Hub id"):
        pushable(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "licence: expected under what others may use the model, got none; name one, e.g. apache-2.0"),
        (("--licence", "apache2"), "did you mean 'apache-2.0'?"),
        (("--licence", "other"), "give its address: licence_link (--licence-link)"),
        (("--licence", "mit", "--repo", "model"), "expected OWNER/NAME on the Hub, got 'model'; name its owner, too"),
        (("--licence", "mit", "--repo", "a/b/c"), "expected OWNER/NAME on the Hub, got 'a/b/c'"),
        (("--licence", "mit", "--scores", "none.json"), "expected scores of an evaluation"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_uploaded(model_hub, saved, capsys, options, said):
    assert main(["--model", str(saved), "--repo", "me/model", *options]) == 2

    assert said in capsys.readouterr().err
    assert not model_hub.asked


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ((401, "Unauthorized"), "me/model: expected a login that may write, got none; hf auth login"),
        ((403, "Forbidden"), "me/model: expected a login that may write there, got one that may not"),
        ((500, "Broken"), "me/model: expected an answer of the Hub"),
    ],
)
def test_a_hub_that_refuses_says_so_in_words(model_hub, saved, capsys, refuses, said):
    model_hub.refuses = refuses

    assert main(["--model", str(saved), "--repo", "me/model", "--licence", "mit"]) == 2

    assert said in capsys.readouterr().err
    assert not model_hub.commits_of


def test_an_upload_that_breaks_off_leaves_nothing_behind(model_hub, saved, capsys):
    first = push_to_hub(small_embedder(), "me/model", licence="mit")
    model_hub.breaks_off = True

    assert main(["--model", str(saved), "--repo", "me/model", "--licence", "mit"]) == 2

    said = capsys.readouterr().err
    assert "me/model: expected an upload that the Hub takes, got Error while uploading" in said
    assert "nothing was committed: push again" in said
    assert model_hub.branches["me/model"]["main"] == first.commit


def test_a_commit_of_somebody_else_meanwhile_is_not_written_over(model_hub, saved, capsys):
    model_hub.race = True

    assert main(["--model", str(saved), "--repo", "me/model", "--licence", "mit"]) == 2

    assert "expected a branch that nobody else writes to, got another commit meanwhile" in capsys.readouterr().err
    assert model_hub.branches["me/model"]["main"] == "9" * 40


def test_a_private_model_does_not_go_to_a_public_repository(model_hub, saved, capsys):
    model_hub.publish("me/model", {".gitattributes": b""}, "0" * 40)

    assert main(["--model", str(saved), "--repo", "me/model", "--licence", "mit", "--private"]) == 2

    assert "expected a private repository, got a public one that is there already" in capsys.readouterr().err
    assert model_hub.branches["me/model"]["main"] == "0" * 40


@pytest.mark.parametrize("family", ["qwen3_vl", "phi3_v", "mllama", "llama", "bert", "xlm-roberta", "clip", "siglip"])
def test_all_that_is_saved_of_a_family_is_part_of_a_model(family, tmp_path):
    family_embedder(family).save(tmp_path)

    assert pushable(tmp_path).exported is None


@pytest.mark.parametrize("to", ["hf", "vllm"])
def test_all_that_is_exported_is_part_of_a_model(to, tmp_path):
    export_model(family_embedder("qwen2").eval(), to, tmp_path / to)

    assert pushable(tmp_path / to).exported == to


def test_no_network_and_the_offline_switch_are_told_apart(model_hub, saved, capsys, monkeypatch):
    command = ["--model", str(saved), "--repo", "me/model", "--licence", "mit"]
    model_hub.close()

    assert main(command) == 2
    assert "expected an answer of the Hub" in capsys.readouterr().err
    go_offline(monkeypatch)
    assert main(command) == 2
    assert "me/model: expected a network, got HF_HUB_OFFLINE is set; unset it to push" in capsys.readouterr().err


def test_the_command_pushes_as_its_users_start_it(model_hub, saved, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": model_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/push.py"), "--model", saved, "--repo", "me/model", "--licence", "mit"],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "embedder.yaml" in model_hub.files("me/model")
