"""MtebEncoder: any embedder as a model that mteb evaluates."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType
from torch import Tensor

from mmembed.errors import InputError, LostProcessError, nearest
from mmembed.evaluation.crew import Crew, check_one_model
from mmembed.evaluation.encode import encode_set
from mmembed.evaluation.protocol import ID_DIGITS
from mmembed.files import fingerprint
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.models.embedder import Embedder
from mmembed.models.identity import identity
from mmembed.models.settings import DualEncoder, Side
from mmembed.processes import ALONE, Processes
from mmembed.serve.mteb.meta import meta_of
from mmembed.serve.mteb.rows import named_items

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from torch.utils.data import DataLoader

Instruct = Literal["queries", "all", "none"]
Prompts = Mapping[str, str | Mapping[str, str]]
"""Words by the name of a task, by a type of tasks or by ``query`` and ``document``; mteb's own order decides."""


class MtebEncoder(AbsEncoder):
    """An embedder behind mteb's protocol of encoders: rows in, vectors out, in their order.

    mteb's ``query`` is our query, its ``document`` our target, and a row of a task without sides a query. Each distinct
    row passes the model once, whatever batches mteb makes. Frames of clips are those that the model's settings take.

    Args:
        model: who embeds.
        meta: what mteb says of the model; None is :func:`meta_of` it, with a name of an experiment where instructions
            are not those that it gets without a word here, so that results of both do not mix.
        prompts: instructions in place of the tasks' own.
        instruct: who gets tasks' own instructions: ``queries``, with rows of tasks without sides, where documents get
            only what is said for documents; ``all``, where they get an instruction without a side too; or ``none``.
            None is ``queries``, and ``none`` for dual encoders, which would take an instruction for one more text.
            Those of ``prompts`` are given in any case.
        cache: keeps vectors between runs.
        processes: of the run, each of which calls :meth:`encode` with the same rows; they share the work, and each gets
            all vectors.
        crew: who embeds instead, where the first process alone calls :meth:`encode` and the others serve the crew.
        bars: show how far an encoding is; None leaves it to mteb's ``show_progress_bar``.

    Raises:
        InputError: both of ``processes`` and ``crew``, or processes with different models.
    """

    def __init__(
        self,
        model: Embedder,
        meta: "ModelMeta | None" = None,
        *,
        prompts: Prompts | None = None,
        instruct: Instruct | None = None,
        cache: EmbeddingCache | None = None,
        processes: Processes = ALONE,
        crew: Crew | None = None,
        bars: bool | None = None,
    ) -> None:
        if crew is not None and processes.world > 1:
            raise InputError(
                "processes", expected="none beside a crew, which has its own", got=f"{processes.world}",
                remedy="leave one of the two out",
            )  # fmt: skip
        self.model = model
        if instruct is not None and instruct not in get_args(Instruct):
            raise InputError(
                "instruct", expected="queries, all or none", got=f"'{instruct}'",
                remedy=nearest(instruct, get_args(Instruct)),
            )  # fmt: skip
        self.mteb_model_meta = meta or meta_of(model, experiment_kwargs=experiment(prompts, instruct))
        self.prompts_dict: Any = dict(prompts) if prompts else None
        self.instruct = instruct or ("none" if isinstance(model.settings.backbone, DualEncoder) else "queries")
        self.processes, self.bars = processes, bars
        if crew is None:
            parts = identity(model) if cache is not None or processes.world > 1 else {}
            check_one_model(parts, processes)
            crew = Crew(model.encode, space=cache.space(parts) if cache else None, processes=processes)
        self.crew = crew

    def encode(
        self,
        inputs: "DataLoader[Any]",
        *,
        task_metadata: "TaskMetadata",
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.float32]:
        """Embed the rows of a loader.

        Args:
            inputs: rows of texts, pictures, clips or several of them; None where a row has none of a kind.
            task_metadata: of the task; gives the instruction.
            hf_split: the split, which nothing depends on.
            hf_subset: the subset, likewise.
            prompt_type: the side.
            kwargs: ``show_progress_bar``; ``batch_size`` changes nothing, for batches are made by tokens.

        Returns:
            ``[N, D]``, one row for each of ``inputs``, on every process that called.

        Raises:
            InputError: a row that cannot be embedded; task and row are named.
        """
        if kwargs.get("precision", "float32") not in (None, "float32"):
            raise InputError(
                "precision", expected="float32", got=f"'{kwargs['precision']}'",
                remedy="leave it out; mteb's CompressionWrapper rounds vectors",
            )  # fmt: skip
        side: Side = "target" if prompt_type == PromptType.document else "query"
        words = self.get_task_instruction(task_metadata, prompt_type) or None
        shown = kwargs.get("show_progress_bar", True) if self.bars is None else self.bars
        label = f"{task_metadata.name}: {prompt_type.value if prompt_type else 'rows'}"

        def embed() -> Tensor:
            named = named_items(inputs, task_metadata.name)
            asked = ((name, type(item).of(item, words)) for name, item in named)
            return encode_set(asked, self.crew, side=side, label=label if shown else None, total=len(inputs.dataset))  # type: ignore[arg-type]

        vectors = embed() if self.processes.world == 1 else self._together(embed)
        return vectors.numpy()

    def get_instruction(self, task_metadata: "TaskMetadata", prompt_type: PromptType | None) -> str:
        """The words of a side of a task: ``prompts`` first, then the task's own; empty where there are none for it."""
        side = prompt_type.value if prompt_type else None
        own = self.prompts_dict or {}
        for key in (task_metadata.name, task_metadata.type, side):
            if key in own:
                return _of_side(own[key], side)
        if self.instruct == "none":
            return ""
        given = task_metadata.prompt
        if isinstance(given, Mapping):
            return _of_side(given, side)
        if prompt_type == PromptType.document and self.instruct == "queries":
            return ""
        return super().get_instruction(task_metadata, prompt_type)

    def _together(self, embed: Any) -> Tensor:
        """Let the first process read the rows and hand out the work, and give all of them its vectors, or its error."""
        problem: Exception | None = None
        vectors = torch.empty(0)
        with self.crew:
            if not self.processes.first:
                self.crew.serve()
            else:
                try:
                    vectors = embed()
                except LostProcessError:
                    raise
                except InputError as error:
                    problem = error
                except Exception as error:
                    # others may not be able to read what a library put into its error
                    problem = RuntimeError(f"{type(error).__name__}: {error}")
        problem, shape = self.processes.agree((problem, tuple(vectors.shape)))
        if problem is not None:
            raise problem
        out = vectors if self.processes.first else torch.empty(shape)
        dist.broadcast(out, src=0)
        return out


def experiment(prompts: Prompts | None, instruct: Instruct | None) -> dict[str, str] | None:
    """What mteb calls instructions that are not the usual ones; None for those."""
    asked = {"prompts": dict(prompts) if prompts else None, "instruct": instruct}
    if not any(asked.values()):
        return None
    return {"instructions": fingerprint(json.dumps(asked, sort_keys=True, default=dict))[:ID_DIGITS]}


def _of_side(words: Any, side: str | None) -> str:
    """The words for a side; of a task without sides, those for queries."""
    return str(words.get(side or "query") or "") if isinstance(words, Mapping) else str(words)
