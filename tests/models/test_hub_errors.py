"""What a Hub refuses, or a Hub that does not answer, is told apart in words, whatever is opened, and within seconds."""

import socket
import time

import pytest

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models import repository
from mmembed.models.profiles import load_released
from mmembed.models.sam2.opening import open_sam
from mmembed.models.settings import DualEncoder, EmbedderSettings, QwenVL, Scratch, TimmTower
from tests.cases import GOLDEN, WORDS
from tests.models_hub import go_offline, go_online

COMMIT, NONE = "a" * 40, "f" * 40
ROW = "VLM2Vec/VLM2Vec-V2.0"
REVISION = load_released(ROW)[0].revision
BASE = GOLDEN / "vlm2vec/qwen2_vl"


def with_adapter(revision):
    return Embedder(EmbedderSettings(QwenVL(path=str(BASE), adapter="me/adapter", adapter_revision=revision)))


def with_dual_encoder(path, **settings):
    return Embedder(EmbedderSettings(DualEncoder(path=path, **settings)))


OPENED = {
    "me/model": lambda revision: Embedder.from_pretrained("me/model", revision=revision),
    ROW: lambda revision: Embedder.from_pretrained(ROW, revision=revision),
    "me/whole": lambda revision: Embedder.from_pretrained("me/whole", profile="vlm2vec", revision=revision),
    "me/adapter": with_adapter,
    "me/dual": lambda revision: with_dual_encoder("me/dual", revision=revision),
    "timm/vit_base_patch32_clip_224.openai": lambda revision: with_dual_encoder(
        "ViT-B-32-quickgelu:openai", revision=revision
    ),
    "me/sam": lambda revision: open_sam("me/sam", revision),
}
"""What one opens, by the repository that is asked for it first: a saved embedder, a released checkpoint by its name and
by its profile, an adapter, dual encoders and a SAM 2."""


def refusal(name, revision=None):
    started = time.monotonic()
    with pytest.raises(InputError) as refused:
        OPENED[name](revision)
    assert time.monotonic() - started < 60
    return str(refused.value)


@pytest.mark.parametrize("name", OPENED)
def test_no_repository_no_revision_and_a_gated_one_are_told_apart(model_hub, name):
    missing = refusal(name)
    model_hub.publish(name, {"README.md": b""}, (REVISION if name == ROW else None) or COMMIT)
    no_revision = refusal(name, NONE)
    model_hub.gated.add(name)
    gated = refusal(name)

    assert missing == (
        f"{name}: expected a directory or Hub id, got no such directory, and no such repository on the Hub; "
        "check the name; if it is private, run: hf auth login"
    )
    assert no_revision == (
        f"{name}: revision: expected a branch, tag or commit of the repository, got '{NONE}'; "
        f"look at {model_hub.url}/{name}/commits/main"
    )
    assert gated == (
        f"{name}: expected a repository that this login may read, got a gated one; "
        f"accept its terms at {model_hub.url}/{name}, then run: hf auth login"
    )


@pytest.mark.parametrize("name", OPENED)
def test_a_closed_port_and_the_offline_switch_are_told_apart(model_hub, name, tmp_path, monkeypatch):
    model_hub.close()
    refused = refusal(name)
    go_offline(monkeypatch)
    offline = refusal(name)

    at = f" at {REVISION}" if name == ROW and REVISION else ""
    assert refused.startswith(f"{name}: expected an answer of the Hub ({model_hub.url}), got ConnectError: ")
    assert refused.endswith("; check network and HF_ENDPOINT; or name a directory")
    assert offline == (
        f"{name}: expected a directory, or a Hub repository that lies in the cache while HF_HUB_OFFLINE is set, "
        f"got no such directory, and no whole {name}{at} in {tmp_path / 'cache'}; "
        f"check the name; unset HF_HUB_OFFLINE, or run where there is a network: hf download {name}"
    )


def test_a_hub_that_never_answers_is_waited_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "HUB_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        go_online(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "cache")

        assert "expected an answer of the Hub" in refusal("me/model")
        assert "got ReadTimeout" in refusal("me/model")


def test_a_hub_that_fails_is_not_made_up_for_by_an_older_copy(model_hub, tmp_path, monkeypatch):
    model_hub.publish("me/model", {"README.md": b""}, COMMIT)
    repository.fetched("me/model", "README.md", None)
    model_hub.close()

    said = refusal("me/model")

    assert said.endswith(f"set HF_HUB_OFFLINE=1 to open commit {COMMIT} in the cache")


def test_a_file_of_a_known_commit_is_not_tried_for_minutes(model_hub, tmp_path, monkeypatch):
    model_hub.publish("me/model", {"README.md": b"", "embedder.yaml": b""}, COMMIT)
    repository.fetched("me/model", "README.md", None)
    model_hub.close()
    monkeypatch.setattr(repository, "_reached", {})

    assert "expected an answer of the Hub" in refusal("me/model", COMMIT)


def test_timms_own_weights_that_cannot_be_had_name_the_setting(model_hub):
    scratch = DualEncoder(scratch=Scratch("clip"), image_tower=TimmTower("vit_tiny_patch16_224"))

    with pytest.raises(InputError, match=r"image_tower.pretrained: expected timm's weights .* no such repository"):
        Embedder(EmbedderSettings(scratch), texts=WORDS)


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "../x", "me/model:tag"])
def test_a_name_that_cannot_be_one_of_the_hub_is_a_directory_that_is_not_there(model_hub, name):
    with pytest.raises(InputError, match=f"{name}: expected a SAM 2: .* got no such directory; facebook/"):
        open_sam(name)
    assert not model_hub.asked
