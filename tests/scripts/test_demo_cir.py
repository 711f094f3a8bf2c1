"""The demo of composed retrieval without its training: what it compares, and its way in a hurry."""

import pytest
import torch

from mmembed import Embedder
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phi, Phrases, RawPrompt, Scratch, Sum
from mmembed.recipe import read_recipe
from scripts.demo_cir import COMPOSED, CONFIG, QUICK, composed, contestants
from tests.cases import WORDS


@pytest.fixture
def final(tmp_path):
    """A small CLIP with a mapping network, as the recipe leaves it."""
    prompt = RawPrompt(phrases=Phrases(both="$ left of $ , {text}"))
    settings = EmbedderSettings(DualEncoder(scratch=Scratch("clip")), prompt, Phi(places="all"))
    Embedder(settings, texts=WORDS).save(tmp_path / "final")
    return tmp_path / "final"


def test_the_quick_way_is_the_same_recipe_with_fewer_steps():
    whole, quick = read_recipe(CONFIG), read_recipe(CONFIG, QUICK)

    assert {name: stage.steps for name, stage in quick.stages.items()} == {"clip": 20, "lincir": 20}
    assert quick.embedder == whole.embedder


def test_another_composer_stands_on_the_same_towers_without_the_phrase(final, tmp_path, picture):
    trained = Embedder.from_pretrained(final, device="cpu")

    made = Embedder.from_pretrained(composed(final, Sum(image_weight=0.0), tmp_path / "text/model"), device="cpu")

    alone = ["a text", picture(56, 56)]
    assert torch.equal(made.encode(alone), trained.encode(alone))
    assert torch.equal(made.encode({"image": picture(56, 56), "text": "a text"}), made.encode("a text"))


def test_a_composed_model_is_written_once_for_the_weights_it_is_made_of(final, tmp_path):
    folder = composed(final, Sum(), tmp_path / "sum/model")
    stamp = folder.stat().st_mtime_ns
    assert composed(final, Sum(), folder).stat().st_mtime_ns == stamp

    (final / "embedder.yaml").write_text((final / "embedder.yaml").read_text() + "\n# other bytes\n")

    assert composed(final, Sum(), folder).stat().st_mtime_ns != stamp


def test_without_the_model_of_make_demo_its_row_is_left_out_and_said_so(final, tmp_path, capsys):
    names = [one.name for one in contestants(final, tmp_path / "none", tmp_path)]

    assert names[-1] == "lincir"
    assert f"no model in {tmp_path / 'none'}: its row is left out" in capsys.readouterr().err
    *_, last = contestants(final, final, tmp_path)
    assert (last.name, last.learned, last.prompts) == ("vlm", COMPOSED, "instructed")
