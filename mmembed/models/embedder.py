"""The Embedder: items in, unit vectors out; the same object trains, evaluates and ships."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.errors import InputError, nearest
from mmembed.files import whole_directory, write_text
from mmembed.items import Item, ItemLike
from mmembed.models.adapters import add_lora, merge_adapter, save_adapter
from mmembed.models.ahead import rows_ahead
from mmembed.models.backbone import Backbone
from mmembed.models.compiled import compile_layers
from mmembed.models.encoding import SHARED_BYTES, WINDOW_CHUNKS, Encoding, usual_tokens
from mmembed.models.features import SharedFeatures
from mmembed.models.last_layer import check_last_layer, why_at_all_tokens
from mmembed.models.media_cache import MediaCache
from mmembed.models.precision import whole_convolutions
from mmembed.models.region_encoders.encoder import RegionEncoder, check_region_encoder
from mmembed.models.resolve import Asked, at_commits, resolve
from mmembed.models.saved import (
    POOLER_FILE,
    REGIONS_FILE,
    SETTINGS_FILE,
    base_of,
    load_part,
    refuse_foreign,
    save_part,
    weights_of,
)
from mmembed.models.sequence import Batch, Features, Row
from mmembed.models.settings import EmbedderSettings, Side
from mmembed.progress import track
from mmembed.settings import check_types, dump_yaml
from mmembed.timers import span


class Embedder(nn.Module):
    """Backbone, region encoder, pooler and normalisation, with the settings that made them."""

    def __init__(self, settings: EmbedderSettings, *, texts: Iterable[str] | None = None) -> None:
        """Build from settings; ``texts`` train the tokenizer of a scratch backbone.

        With settings that name a LoRA and no adapter to load, a fresh adapter is put in.
        """
        super().__init__()
        check_types(settings)
        settings = at_commits(settings)
        if settings.lora is not None and getattr(settings.backbone, "scratch", None) is not None:
            raise InputError("lora", expected="a checkpoint to adapt", got="a scratch model", remedy="train it whole")
        regions = None if settings.regions is None else settings.regions.preparer()
        self.backbone: Backbone = settings.backbone.build(prompt=settings.prompt, texts=texts, regions=regions)
        pooler = settings.pooler or self.backbone.usual_pooler
        self.backbone.check_pooler(pooler)
        self.settings = replace(settings, pooler=pooler)
        self.backbone.speed = settings.speed
        self.backbone.check_packing()
        self.pooler = pooler.build_for(self.backbone)
        if settings.pooler_weights is not None:
            load_part(self.pooler, settings.pooler_weights, "pooler")
        self.regions = RegionEncoder() if settings.regions is None else settings.regions.build(self.backbone)
        check_region_encoder(self.regions, self.backbone)
        if settings.regions_weights is not None:
            load_part(self.regions, settings.regions_weights, "region encoder")
        if settings.speed.last_layer == "pooled":
            check_last_layer(self.backbone, self.pooler)
        if settings.lora is not None and not self.has_adapter:
            self.backbone.check_lora(settings.lora)
            add_lora(self.backbone.model, settings.lora, self.backbone.trained_tokens)
        self.trainable = self._trainable()
        """Names of the parameters that training may change: all, or an adapter's and those of the parts beside."""
        if settings.speed.compile:
            compile_layers(self.backbone, but_last=self.last_layer_at_one_token)

    @property
    def has_adapter(self) -> bool:
        """Whether the weights are a base model's with an adapter in them."""
        return hasattr(self.backbone.model, "peft_config")

    @property
    def tower_is_frozen(self) -> bool:
        """Whether no weight that a medium's features depend on trains, so that they may be computed once and kept."""
        marks = self.regions.marks_patches and any(p.requires_grad for p in self.regions.parameters())
        return self.backbone.tower_is_frozen and not marks

    @property
    def last_layer_at_one_token(self) -> bool:
        """Whether the last layer is computed to its end only at the token of a row that the pooler reads."""
        choice = self.settings.speed.last_layer
        return choice == "pooled" or (choice == "auto" and why_at_all_tokens(self.backbone, self.pooler) is None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def width(self) -> int:
        """D, the size of an embedding."""
        return self.pooler.out_width or self.backbone.width

    def prepare(self, items: Sequence[Item], side: Side) -> list[Row]:
        """Decode, render and tokenize items; an error names the item's place in ``items``."""
        _check_side(side)
        numbered = list(enumerate(items))
        with rows_ahead(self.backbone.preprocessor, numbered, side) as rows:
            return [self._checked(i, row) for i, row in enumerate(rows)]

    def cache_media(self, max_bytes: int) -> None:
        """Keep up to ``max_bytes`` of prepared media in memory (each process its own)."""
        self.backbone.preprocessor.cache = MediaCache(max_bytes)  # type: ignore[attr-defined]

    def vision(self, batch: Batch) -> Features:
        """The features of the batch's distinct media."""
        with span("vision"), whole_convolutions(), self.regions.marking(batch, self.backbone):
            return self.backbone.vision(batch)

    def forward(self, batch: Batch, features: Features | None = None) -> Tensor:
        """Embeddings ``[B, D]`` of a batch, in float32; unit length unless the settings say otherwise.

        Args:
            batch: what to embed.
            features: the media's features where they are known already (a frozen tower's).
        """
        if features is None:
            features = self.vision(batch)
        sequence = self.regions(self.backbone.embed(batch, features), batch, features, self.backbone)
        sequence = self.pooler.inject(sequence, self.backbone)
        with span("language"):
            places = self.pooler.read_places(sequence) if self.last_layer_at_one_token else None
            hidden = self.backbone.run(sequence, self.pooler.layers, places)
        pooled = self.pooler(hidden).float()
        return F.normalize(pooled, dim=-1) if self.settings.normalize else pooled

    @torch.no_grad()
    def encode(
        self,
        items: ItemLike | Sequence[ItemLike],
        *,
        instruction: str | None = None,
        side: Side = "query",
        batch_tokens: int | None = None,
        workers: int = 0,
        progress: bool = False,
    ) -> Tensor:
        """Embed items.

        Args:
            items: what :meth:`Item.of` accepts, one or many.
            instruction: for items that bring none.
            side: which side they are on; matters to poolers that treat the sides differently.
            batch_tokens: most tokens, padding included, that pass through the model together; None is 16384 on a GPU
                and 2048 on a CPU, where more at once is slower. The vectors do not depend on it.
            workers: most processes that decode and tokenize ahead of the model, bit by bit the same for any number; 0
                does both in turn. :func:`mmembed.models.ahead.usual_workers` is what the commands take.
            progress: show a bar with the time left.

        Returns:
            float32 ``[N, D]`` on the CPU, in input order.

        Raises:
            InputError: an item that cannot be used; its number is named. Or a worker was killed.
        """
        _check_side(side)
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError("batch_tokens", expected="at least 1", got=batch_tokens, remedy="leave it out")
        single = isinstance(items, str | Item | Mapping) or not isinstance(items, Sequence)
        given: Sequence[Any] = [items] if single else items  # type: ignore[assignment]
        made = [self._item(i, value, instruction) for i, value in enumerate(given)]
        budget = batch_tokens or usual_tokens(self.device)
        window, speed = budget * WINDOW_CHUNKS, self.settings.speed
        features = SharedFeatures(self.vision, only=(), max_bytes=SHARED_BYTES if speed.deduplicate else 0)
        encoding = Encoding(self, features, self.backbone.packs, speed, self.device, budget, window)
        was_training = self.training
        self.eval()
        out = torch.empty(len(made), self.width)
        try:
            with rows_ahead(self.backbone.preprocessor, list(enumerate(made)), side, workers, window) as rows:
                checked: Iterable[Row] = (self._checked(i, row) for i, row in enumerate(rows))
                encoding.write(track(checked, "encode", total=len(made)) if progress else checked, out)
        finally:
            self.train(was_training)
        return out

    def similarity(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Inner products ``[Q, N]`` of two sets of embeddings."""
        return queries @ targets.T

    def merge_adapter(self) -> Self:
        """Fold the adapter into the weights, in place; what is saved from then on is a whole checkpoint.

        Raises:
            InputError: there is no adapter, or its base is quantised.
        """
        merge_adapter(self.backbone.model)
        backbone: Any = self.settings.backbone
        self.settings = replace(
            self.settings, backbone=replace(backbone, adapter=None, adapter_revision=None), lora=None
        )
        self.backbone.model.requires_grad_(True)
        self.trainable = self._trainable()
        return self

    def save(self, directory: str | Path) -> None:
        """Write the weights and ``embedder.yaml``; the directory appears whole or not at all.

        A saved embedder that stands there is replaced. A model that trained an adapter saves the adapter and names its
        base. Weights of the pooler and of the region encoder stand beside either.

        Raises:
            InputError: something else than a saved embedder stands there, or weights that are not saved: a quantised
                base alone.
        """
        target = Path(directory)
        backbone: Any = self.settings.backbone
        base = base_of(backbone.path, target) if self.has_adapter else ""
        refuse_foreign(target)
        with whole_directory(target) as part:
            if self.has_adapter:
                save_adapter(self.backbone.model, part / "adapter", base, self.backbone.head)
                backbone = replace(backbone, path=base, adapter="./adapter", adapter_revision=None)
            else:
                self.backbone.save(part)
                backbone = backbone.saved()
            files = {"pooler_weights": (self.pooler, POOLER_FILE), "regions_weights": (self.regions, REGIONS_FILE)}
            saved: dict[str, Any] = {
                key: f"./{name}" if save_part(of, part / name) else None for key, (of, name) in files.items()
            }
            regions = None if self.settings.regions is None else self.settings.regions.saved()
            settings = replace(self.settings, backbone=backbone, regions=regions, **saved)
            write_text(part / SETTINGS_FILE, dump_yaml(settings))

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        adapter: str | None = None,
        profile: str | None = None,
        device: str | torch.device | None = None,
        pooler_weights: str | Path | None = None,
        regions: Mapping[str, Any] | None = None,
        speed: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Self:
        """Open a saved run, a Hub repository with ``embedder.yaml``, or a released checkpoint by its name or profile.

        Args:
            model: directory or Hub id.
            adapter: LoRA or DoRA to load onto it.
            profile: how a released checkpoint embeds: a profile's name, e.g. ``vlm2vec``, or the Hub id of what a
                directory is a copy of. What ``embedder.yaml`` says is used otherwise, or the profile that has a row for
                this Hub id.
            device: where to put it; a GPU if there is one.
            pooler_weights: file of the pooler's or composer's weights, e.g. a released ``SEARLE_ViT-B32.pt``; what the
                settings name is used otherwise.
            regions: settings of the region encoder by name, e.g. ``{"checkpoint": "sam2.1_hiera_base_plus.pt"}``.
            speed: what is computed faster, by name, e.g. ``{"last_layer": "pooled"}``; see
                :class:`mmembed.models.settings.Speed`.
            overrides: settings of the backbone by name, e.g. ``dtype="bfloat16"``, ``max_pixels=...``; ``revision`` is
                a branch, tag or commit of the Hub repository, and the settings then name the commit that was opened.

        Raises:
            InputError: neither ``embedder.yaml`` nor a profile, a profile that the checkpoint contradicts, an unknown
                override, or an unusable checkpoint.
        """
        asked = Asked(
            str(model), adapter=adapter, profile=profile, regions=regions, speed=speed, overrides=overrides,
            pooler_weights=None if pooler_weights is None else str(pooler_weights),
        )  # fmt: skip
        embedder = cls(resolve(asked))
        embedder._refuse_untrained(str(model))
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return embedder.to(chosen).eval()
        except RuntimeError as error:
            raise InputError(
                "device", expected="cpu, cuda, cuda:1 or another of torch's devices", got=f"'{chosen}': {error}",
                remedy="leave it out for a GPU if there is one",
            ) from error  # fmt: skip

    def _refuse_untrained(self, model: str) -> None:
        """Refuse a part that starts afresh in a model that is opened to embed."""
        parts = (
            ("pooler", self.pooler, POOLER_FILE, self.settings.pooler_weights),
            ("region encoder", self.regions, REGIONS_FILE, self.settings.regions_weights),
        )
        for name, part, file, given in parts:
            if given is None and weights_of(part):
                key = file.replace(".safetensors", "_weights")
                raise InputError(
                    model, expected=f"the {name}'s trained weights, {file}", got=f"{key}: null",
                    remedy=f"name its file in {key}, or train the {name} first: Embedder(settings) starts it afresh",
                )  # fmt: skip

    def _trainable(self) -> frozenset[str]:
        """The names of what trains, once weights that no embedding depends on are frozen."""
        for name, parameter in self.backbone.model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(self.backbone.unused))
        return frozenset(name for name, p in self.named_parameters() if p.requires_grad)

    def _item(self, i: int, value: Any, instruction: str | None) -> Item:
        try:
            return Item.of(value, instruction)
        except InputError as error:
            raise error.within(f"item {i}") from error

    def _checked(self, i: int, row: Row) -> Row:
        try:
            self.pooler.check(row)
            return row
        except InputError as error:
            raise error.within(f"item {i}") from error


def _check_side(side: str) -> None:
    if side not in get_args(Side):
        raise InputError("side", expected="query or target", got=f"'{side}'", remedy=nearest(side, get_args(Side)))
