"""The page: gradio controls around a :class:`~mmembed.serve.query.Query` and a searcher. What they do is theirs."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, TypeAlias

import gradio as gr

from mmembed.errors import InputError
from mmembed.items import Image, Item
from mmembed.serve import shown
from mmembed.serve.ask import Desk, plain
from mmembed.serve.query import Query, Tool
from mmembed.serve.search import Searcher

TOOLS: list[tuple[str, Tool]] = [
    ("point on it", "inside"), ("point not on it", "outside"), ("box", "box"), ("draw over it", "draw"),
]  # fmt: skip
HOW: dict[Tool, str] = {
    "inside": "click on what is meant, as often as wanted",
    "outside": "click on what is not meant",
    "box": "drag from corner to corner, or click on two opposite corners",
    "draw": "paint over what is meant",
}
NO_REGIONS = (
    "This model has no region encoder, so no place in a picture can be marked. One that was trained with the setting "
    "regions can be asked by click, box and mask."
)
MARKABLE = "the picture of the query; to mark a place click in it, or use the arrow keys and Enter"
KEYS = (
    "<p class='keys'><kbd>Enter</kbd> searches, <kbd>Esc</kbd> clears, <kbd>Ctrl</kbd>+<kbd>Z</kbd> undoes a mark</p>"
)
USUAL_HITS, MOST_HITS = 12, 60
SCRIPTS = ("keys.html", "marks.html", "files.html", "sight.html")
IN_TURN: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "query"}
"""Events wait for those before them."""

Updates: TypeAlias = dict[Any, Any]
"""New values by control."""


class Page:
    """The controls, and what happens when one is used.

    Args:
        searcher: what is asked.
        instructions: the usual one of each kind of query; those that are missing have none.
    """

    def __init__(self, searcher: Searcher, instructions: Mapping[str, str]) -> None:
        self.desk = Desk(searcher, instructions)
        with gr.Blocks(title="mmembed", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as blocks:
            self.blocks = blocks
            self.state = gr.State(Query())
            gr.Markdown(f"# Search {len(searcher.index):,} items")
            with gr.Row():
                with gr.Column(scale=2, min_width=360):
                    self._query_controls()
                with gr.Column(scale=3, min_width=360):
                    self.message = gr.HTML("", elem_id="message")
                    self.results = gr.HTML(shown.said(shown.NOTHING_ASKED), elem_id="results")
            with gr.Accordion("Model and index", open=False):
                gr.HTML(shown.facts(searcher), elem_id="facts")
        with self.blocks:
            self._wire()

    def launch(self, *, host: str, port: int, share: bool) -> str:
        """Serve the page; gives its address and returns at once.

        Raises:
            InputError: the port is taken.
        """
        assets = files("mmembed.serve") / "assets"
        try:
            _, local, public = self.blocks.launch(
                server_name=host, server_port=port, share=share, quiet=True, prevent_thread_lock=True,
                ssr_mode=False, footer_links=[], theme=gr.themes.Base(), enable_monitoring=False,
                css=(assets / "page.css").read_text(), head="".join((assets / name).read_text() for name in SCRIPTS),
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                "port", expected="a free port", got=f"{port}: {error}", remedy="give another --port"
            ) from None
        return str(public or local)

    def _query_controls(self) -> None:
        self.words = gr.Textbox(
            label="Words", placeholder="what is looked for, or how the picture should differ", elem_id="words",
            autofocus=True, lines=1,
        )  # fmt: skip
        self.file = gr.File(label="Picture, clip or PDF", elem_id="file", height=120)
        self.number = gr.Number(1, label="Page of the PDF", precision=0, visible=False, elem_id="number")
        self.preview = gr.HTML("", elem_id="preview")
        self.tool = gr.Radio(
            TOOLS, value="inside", label="Mark a place in the picture by", info=HOW["inside"], visible=False,
            elem_id="tool",
        )  # fmt: skip
        self.canvas = gr.Image(
            label="Picture", show_label=False, interactive=False, visible=False, format="png", buttons=[],
            elem_id="picture",
            alt_text=MARKABLE if self.desk.has_regions else "the picture of the query",
        )  # fmt: skip
        # a script presses this with the box that was dragged
        self.dragged = gr.Button("Box", elem_id="dragged", visible="hidden")
        self.corners = gr.JSON(visible=False)
        self.editor = gr.ImageEditor(
            label="Draw over what is meant", visible=False, type="pil", sources=(), transforms=(), layers=False,
            brush=gr.Brush(default_size=24, colors=["#e60096"], color_mode="fixed"), elem_id="editor", buttons=[],
        )  # fmt: skip
        self.refused = gr.HTML(
            "" if self.desk.has_regions else shown.said(NO_REGIONS), visible=False, elem_id="no-regions"
        )
        with gr.Row():
            self.undo = gr.Button("Undo mark", elem_id="undo", size="md", min_width=80, visible=False)
            self.clear = gr.Button("Clear query", elem_id="clear", size="md", min_width=80)
            self.search = gr.Button("Search", variant="primary", elem_id="search", size="md", min_width=80)
        self.instruction = gr.Textbox(
            label="Instruction", info="what the model is told to do with the query; empty for none",
            elem_id="instruction", lines=1,
        )  # fmt: skip
        self.count = gr.Slider(1, MOST_HITS, value=USUAL_HITS, step=1, label="Results", elem_id="count")
        gr.HTML(KEYS)

    def _wire(self) -> None:
        """What each event takes and changes; one runs at a time, so that none sees a query that is out of date."""
        typed: list[Any] = [self.state, self.words, self.instruction]
        said: list[Any] = [self.state, self.instruction, self.message]
        marked: list[Any] = [*said, self.canvas]
        whole: list[Any] = [*marked, self.tool, self.editor, self.preview, self.refused, self.undo]
        on = partial(self._on, typed)
        quiet = {"show_progress": "hidden", "trigger_mode": "always_last"}
        on([self.words.input], self._said, [], said, **quiet)
        on([self.instruction.input], self._on_instruction, [self.instruction], said, **quiet)
        files = [self.file.upload, self.file.clear, self.number.change]
        on(files, self._on_file, [self.file, self.number], [*whole, self.number])
        on([self.tool.input], self._on_tool, [self.tool, self.editor], whole)
        if self.desk.has_regions:
            self.canvas.select(self._on_click, [*typed, self.tool], marked, **IN_TURN, trigger_mode="multiple")
        on(
            [self.dragged.click], self._on_drag, [self.corners], marked, trigger_mode="multiple",
            js="(...given) => [...given.slice(0, -1), window.draggedBox]",
        )  # fmt: skip
        on([self.undo.click], self._on_undo, [], marked, trigger_mode="multiple")
        cleared = [*whole, self.words, self.file, self.number, self.results]
        on([self.clear.click], self._on_clear, [self.tool, self.editor], cleared, trigger_mode="multiple")
        asks = [self.search.click, self.words.submit, self.instruction.submit]
        on(asks, self._on_search, [self.count, self.tool, self.editor], [*marked, self.results])

    def _on(
        self, typed: list[Any], events: list[Any], answer: Callable[..., Updates], more: list[Any], out: list[Any],
        **options: Any,
    ) -> None:  # fmt: skip
        for event in events:
            event(partial(self._answer, answer), [*typed, *more], out, **IN_TURN, **options)

    def _answer(
        self, answer: Callable[..., Updates], query: Query, words: str, instruction: str, *more: Any
    ) -> Updates:
        """Answer with the fields as they stand; what an input error says stands on the page, and nothing else moves."""
        try:
            return {self.message: ""} | answer(self._as_typed(query, words, instruction), *more)
        except InputError as error:
            return {self.message: shown.warning(error)}

    def _as_typed(self, query: Query, words: str, instruction: str) -> Query:
        return query.with_words(words).told(instruction, self.desk.instructions)

    def _on_instruction(self, query: Query, text: str) -> Updates:
        return {self.state: query.with_instruction(text)}

    def _on_file(self, query: Query, path: str | None, number: int | None) -> Updates:
        number_shown = {self.number: gr.update(visible=self.desk.is_document(path))}
        try:
            return number_shown | self._whole(self.desk.with_file(query, path, number))
        except InputError as error:  # the file before must not be searched in place of this one
            told = {self.message: shown.warning(plain(error, path))}
            return number_shown | self._whole(query.without_medium()) | told

    def _on_tool(self, query: Query, tool: Tool, painted: Mapping[str, Any] | None) -> Updates:
        layers = (painted or {}).get("layers") or ()
        return self._whole(self.desk.drawn(query, layers) if layers else query, tool)

    def _on_click(self, query: Query, words: str, instruction: str, tool: Tool, event: gr.SelectData) -> Updates:
        # gradio hands over the event only where the signature names it
        return self._answer(
            lambda asked: self._marked(self.desk.clicked(asked, tool, event.index)), query, words, instruction
        )

    def _on_drag(self, query: Query, corners: list[float]) -> Updates:
        return self._marked(self.desk.dragged(query, corners))

    def _on_undo(self, query: Query) -> Updates:
        return self._marked(query.undone())

    def _on_clear(self, query: Query, tool: Tool, painted: Mapping[str, Any] | None) -> Updates:
        left = self._as_painted(query, tool, painted).cleared()
        if left.medium is not None:
            return self._whole(left, tool)
        empty = {self.words: "", self.file: None, self.number: gr.update(value=1, visible=False)}
        return self._whole(left) | empty | {self.results: shown.said(shown.NOTHING_ASKED)}

    def _on_search(self, query: Query, count: float, tool: Tool, painted: Mapping[str, Any] | None) -> Updates:
        query = self._as_painted(query, tool, painted)
        hits = self.desk.search(query, int(count))
        return self._said(query) | {
            self.results: shown.results(
                hits, self.desk.media, asked=query.in_words, num_items=len(self.desk.searcher.index)
            )
        }

    def _as_painted(self, query: Query, tool: Tool, painted: Mapping[str, Any] | None) -> Query:
        """With what is painted in place of the marks before, while it is what shows."""
        if tool != "draw" or not isinstance(query.medium, Image):
            return query
        return self.desk.drawn(query.unmarked(), (painted or {}).get("layers") or ())

    def _said(self, query: Query) -> Updates:
        return {self.state: query, self.instruction: query.instruction_in_force(self.desk.instructions)}

    def _marked(self, query: Query) -> Updates:
        return self._said(query) | {self.canvas: self.desk.drawing(query)}

    def _whole(self, query: Query, tool: Tool = "inside") -> Updates:
        """Every control as the query needs it; the tool is the first one again unless it was just chosen."""
        is_picture = isinstance(query.medium, Image)
        can_mark = is_picture and self.desk.has_regions
        draws = is_picture and tool == "draw"
        return self._said(query) | {
            self.canvas: gr.update(value=self.desk.drawing(query), visible=is_picture and not draws),
            self.tool: gr.update(value=tool, info=HOW[tool], visible=can_mark),
            self.undo: gr.update(visible=can_mark and not draws),
            self.editor: gr.update(value=self._paper(query) if draws else None, visible=draws),
            self.refused: gr.update(visible=is_picture and not can_mark),
            self.preview: self._preview(query),
        }

    def _paper(self, query: Query) -> dict[str, Any]:
        return {"background": self.desk.drawing(query.unmarked()), "layers": [], "composite": None}

    def _preview(self, query: Query) -> str:
        if query.medium is None or isinstance(query.medium, Image):
            return ""
        return shown.preview(Item((query.medium,)), self.desk.media)
