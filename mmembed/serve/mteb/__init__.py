"""mteb's side of this package: any embedder as one of its models, our benchmarks as its tasks."""

from mmembed.errors import InputError

try:
    import mteb as _mteb  # noqa: F401
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "mteb":
        raise
    raise InputError(
        "mteb", expected="the package mteb, which runs its benchmarks", got="none installed",
        remedy="pip install mmembed[mteb]",
    ) from error  # fmt: skip

from mmembed.serve.mteb.encoder import MtebEncoder
from mmembed.serve.mteb.meta import meta_of, modalities_of, register
from mmembed.serve.mteb.refusals import why_not
from mmembed.serve.mteb.tasks import mteb_task, mteb_tasks

__all__ = ["MtebEncoder", "meta_of", "modalities_of", "mteb_task", "mteb_tasks", "register", "why_not"]
