"""A model is given to others: a saved embedder or an export becomes one commit of a Hub repository, with its card."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.repository import asking, wrong_name
from mmembed.serve.card import base_of_model, check_card, model_card
from mmembed.serve.card_tables import read_recipe_values
from mmembed.serve.export.source import open_source
from mmembed.serve.licences import check_licence, licence_warning
from mmembed.serve.pushable import CARD, Pushable, is_model_file, pushable, recipe_of


@dataclass(frozen=True)
class About:
    """What a card says besides what the model itself does.

    Args:
        licence: as the Hub names it.
        licence_link: where the text of a licence called ``other`` is read.
        scores: files ``scores.json`` of evaluations of the model.
        recipe: ``recipe.yaml`` of the run that trained it; that of the run it lies in or comes from is found.
        datasets: Hub ids of what it was trained on.
        of: directory or Hub id of the embedder that an export was made of; None is what its record says.
    """

    licence: str | None = None
    licence_link: str | None = None
    scores: Sequence[str | Path] = ()
    recipe: str | Path | None = None
    datasets: Sequence[str] = ()
    of: str | None = None


@dataclass(frozen=True)
class Upload:
    """What is to be uploaded, looked at and found whole.

    Args:
        repo_id: where to.
        folder: of the files.
        files: bytes of each by path, the card among them.
        written: what is uploaded in the place of a file of the folder.
        card: the model card.
        warnings: what to think of before, in words.
    """

    repo_id: str
    folder: Path
    files: Mapping[str, int]
    written: Mapping[str, bytes]
    card: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Args:
        url: of the commit.
        commit: its name; ``from_pretrained(ID, revision=COMMIT)`` opens it for ever.
        warnings: what to think of, in words.
    """

    url: str
    commit: str
    warnings: tuple[str, ...]


def push_to_hub(  # noqa: PLR0913
    model: Embedder | str | Path,
    repo_id: str,
    *,
    licence: str | None = None,
    licence_link: str | None = None,
    scores: Sequence[str | Path] = (),
    training: str | Path | None = None,
    datasets: Sequence[str] = (),
    of: str | None = None,
    private: bool = False,
    branch: str | None = None,
) -> Pushed:
    """Upload a model with its card, as one commit: a reader finds the old files or the new ones, never some of each.

    The login is that of ``hf auth login``. Files of a model that lay there and are no part of this one go.

    Args:
        model: an embedder, the folder of a saved one, of a run that is done, or what ``scripts/export.py`` wrote.
        repo_id: ``OWNER/NAME`` on the Hub; made if it is not there.
        licence: as the Hub names it, e.g. ``apache-2.0``.
        licence_link: where the text of a licence called ``other`` is read.
        scores: files ``scores.json`` of evaluations of the model.
        training: ``recipe.yaml`` of the run that trained it; that of the run it lies in or comes from is found.
        datasets: Hub ids of what it was trained on.
        of: directory or Hub id of the embedder that an export was made of; None is what its record says.
        private: a new repository is for its owner alone.
        branch: where to, made if it is not there; None is the main branch.

    Raises:
        InputError: no licence, a folder that is not of a model alone, or a Hub that refuses or does not answer.
    """
    about = About(licence, licence_link, scores, training, datasets, of)
    if not isinstance(model, Embedder):
        return upload(plan(model, repo_id, about), private=private, branch=branch)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "model"
        model.save(folder)
        return upload(_planned(pushable(folder), model, repo_id, about), private=private, branch=branch)


def plan(model: str | Path, repo_id: str, about: About) -> Upload:
    """What would be uploaded; nothing is.

    Raises:
        InputError: see :func:`push_to_hub`.
    """
    _check_id(repo_id)
    found = pushable(Path(model))
    if about.licence is not None:
        check_licence(about.licence)
    return _planned(found, _described(found, about), repo_id, about)


def upload(planned: Upload, *, private: bool = False, branch: str | None = None) -> Pushed:
    """Upload what was planned.

    Raises:
        InputError: the Hub refuses or does not answer; no file of it is there then.
    """
    api = HfApi()
    at = branch or constants.DEFAULT_REVISION
    with _writing(planned.repo_id):
        api.create_repo(planned.repo_id, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(planned.repo_id, branch=branch, exist_ok=True)
        head = api.model_info(planned.repo_id, revision=at)
        if private and not head.private:
            raise InputError(
                planned.repo_id, expected="a private repository", got="a public one that is there already",
                remedy="make it private on the Hub, or leave private out",
            )  # fmt: skip
        there = [file.rfilename for file in head.siblings or ()]
        stale = [name for name in there if is_model_file(name) and name not in planned.files]
        done = api.create_commit(
            planned.repo_id, [*_added(planned), *(CommitOperationDelete(name) for name in stale)],
            commit_message="Upload a model with mmembed", revision=at, parent_commit=head.sha,
        )  # fmt: skip
    return Pushed(str(done.commit_url), str(done.oid), planned.warnings)


def _described(found: Pushable, about: About) -> Embedder:
    """What the card describes: the saved embedder, or what an export was made of, named or by the export's record."""
    if about.of is not None or found.exported is None:
        return Embedder.from_pretrained(found.folder if about.of is None else about.of, device="cpu")
    got: object = "no word of it in its record"
    if found.of is not None:
        try:
            return open_source(found.of)
        except InputError as error:
            got = error
    raise InputError(
        found.folder, expected="the embedder that this export was made of, which the card describes", got=got,
        remedy="name it: of (--of DIR_OR_ID)",
    )  # fmt: skip


def _planned(found: Pushable, model: Embedder, repo_id: str, about: About) -> Upload:
    _check_id(repo_id)
    recipe = about.recipe or found.recipe or (None if found.exported is None else recipe_of(model))
    base, _ = base_of_model(model, None if recipe is None else read_recipe_values(Path(recipe)))
    licence = check_licence(about.licence, base)
    if licence == "other" and about.licence_link is None:
        raise InputError(
            "licence", expected="where the text of a licence called 'other' is read", got="no link",
            remedy="give its address: licence_link (--licence-link)",
        )  # fmt: skip
    card = model_card(
        model, repo_id, licence=licence, licence_link=about.licence_link, scores=about.scores, recipe=recipe,
        datasets=about.datasets, exported=found.exported, notes=found.notes, left=found.left,
    )  # fmt: skip
    check_card(card)
    files = dict(sorted((found.files | {CARD: len(card.encode())}).items()))
    warning = licence_warning(licence, base)
    return Upload(repo_id, found.folder, files, found.written, card, () if warning is None else (warning,))


def _added(planned: Upload) -> list[CommitOperationAdd]:
    own = {**planned.written, CARD: planned.card.encode()}
    return [CommitOperationAdd(name, own.get(name, str(planned.folder / name))) for name in planned.files]


def _check_id(repo_id: str) -> None:
    wrong = wrong_name(repo_id) or (None if "/" in repo_id else "name its owner, too")
    if wrong is not None:
        raise InputError("repo", expected="OWNER/NAME on the Hub", got=f"'{repo_id}'", remedy=wrong)


@contextmanager
def _writing(repo_id: str) -> Iterator[None]:
    """Say in words why one may not write."""
    try:
        with asking(repo_id):
            yield
    except InputError as error:
        status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
        if status == 401:
            raise InputError(repo_id, expected="a login that may write", got="none", remedy="hf auth login") from error
        if status == 403:
            raise InputError(
                repo_id, expected="a login that may write there", got="one that may not",
                remedy="use a token with the right to write, or another owner",
            ) from error  # fmt: skip
        if status == 412:
            raise InputError(
                repo_id, expected="a branch that nobody else writes to", got="another commit meanwhile",
                remedy="look at it, and push again",
            ) from error  # fmt: skip
        if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            raise InputError(
                repo_id, expected="a network", got="HF_HUB_OFFLINE is set", remedy="unset it to push"
            ) from error
        raise
    except (ValueError, RuntimeError) as error:
        why = f"{error}" if error.__cause__ is None else f"{error} {error.__cause__}"
        raise InputError(
            repo_id, expected="an upload that the Hub takes", got=" ".join(why.split())[:300],
            remedy="nothing was committed: push again",
        ) from error  # fmt: skip
