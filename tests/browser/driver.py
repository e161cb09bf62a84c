"""Drive a notebook in a real browser: open it, run it, click, ask its kernel, read its figures.

with chromium() as browser, watched_page(browser, server) as visit:
    notebook = Notebook(visit, server, "05_odd_one_out_game.ipynb")
    assert notebook.run_all() == []
    notebook.page.locator(".ldm-odd-one-out button").first.click()
    notebook.python("page.session.choices")  # what the kernel says
    notebook.figures(".ldm-odd-one-out")  # what the browser draws
    visit.check(server)  # nothing left the machine, nothing went wrong in the console
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import nbformat
import nbformat.v4
from playwright.sync_api import Browser, Page, Route, sync_playwright

from ldm_kit.run_record import find_browser
from tests.browser.servers import ROOT, Server

T = TypeVar("T")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # whatever is not on this machine has no address
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LOCAL = re.compile(r"^(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|^(data|blob|file|about|chrome-error):")
SHARING = ".modebar-btn[data-title*='Share'], .modebar-btn[data-title*='loud']"  # plotly's, to its cloud
# Console errors that are known and harm nobody: pattern -> reason.
ALLOWED: dict[str, str] = {
    r"^\w\.setData is not a function$": "Having drawn a static figure, plotly's renderer hands a PNG of it to "
    "the model of the output, for the notebook's file; Voilà, which saves nothing, has none that takes it.",
}


@dataclass
class Visit:
    """A page, what it asked of other machines (refused), and the errors in its console."""

    page: Page
    left: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def unexpected(self) -> list[str]:
        return [error for error in self.errors if not any(re.search(known, error) for known in ALLOWED)]

    def check(self, server: Server | None = None) -> None:
        """Fail if a request left the machine, a button would send one, or the console has an unexplained error."""
        for frame in self.page.frames:
            sharing = frame.locator(SHARING).count()
            assert not sharing, f"{sharing} buttons upload a figure from {frame.url}"
        assert not self.left, f"{len(self.left)} requests left the machine: {self.left[:5]}"
        assert not self.unexpected(), self.unexpected()[:5]
        if server is not None:
            assert not server.gate.asked, f"the kernels asked the network: {server.gate.asked[:5]}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium (or whichever kaleido would draw with), headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(
    browser: Browser, *, width: int = 1400, height: int = 1000, scale: float = 1
) -> Iterator[Visit]:
    """Open a page in a context of its own, in which every request to another machine is refused and counted."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, service_workers="block"
    )
    visit = Visit(context.new_page())

    def gatekeeper(route: Route) -> None:
        if LOCAL.match(route.request.url):
            route.continue_()
        else:
            visit.left.append(route.request.url)
            route.abort()

    def console(message: Any) -> None:
        if message.type == "error":
            visit.errors.append(f"{message.text} ({message.location.get('url', '')})")

    context.route("**/*", gatekeeper)
    visit.page.on("websocket", lambda ws: LOCAL.match(ws.url) or visit.left.append(ws.url))
    visit.page.on("console", console)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    try:
        yield visit
    finally:
        context.close()


def copy_notebooks(folder: Path, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Copy the notebooks to `folder`; `parameters` are given to each by its name without suffix.

    They go into a cell of their own below the defaults, as papermill does it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        given = dict((parameters or {}).get(path.stem, {}))
        if not given:
            shutil.copy(path, folder / path.name)
            continue
        node = nbformat.read(path, as_version=4)
        tagged = [i for i, cell in enumerate(node.cells) if "parameters" in cell.metadata.get("tags", [])]
        lines = [f"{name} = {value!r}" for name, value in given.items()]
        node.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell("\n".join(lines)))
        nbformat.write(node, folder / path.name)
    return folder


class Notebook:
    """A notebook that is open in JupyterLab, alone on its page."""

    def __init__(self, visit: Visit, server: Server, path: str, timeout: float = 90) -> None:
        self.visit, self.page, self.server, self.path = visit, visit.page, server, path
        cells = nbformat.read(server.folder / path, as_version=4).cells
        self.code_cells = sum(cell.cell_type == "code" for cell in cells)
        self.page.set_default_timeout(timeout * 1000)
        # doc mode: only the notebook, no side bars, no restored workspace
        self.page.goto(
            f"{server.base}/doc/tree/{path}?token={server.token}&reset", wait_until="domcontentloaded"
        )
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell")
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait for a connected, idle kernel; the indicator says idle before there is any."""
        self.page.wait_for_function(
            """() => {
                const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
                const context = widget && widget.sessionContext;
                const kernel = context && context.isReady && context.session && context.session.kernel;
                return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
            }"""
        )

    def run_all(self, timeout: float = 240) -> list[str]:
        """Run all cells and give the errors of those that raised."""
        self.page.set_default_timeout(timeout * 1000)
        script = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
        promised(self.page, script, timeout=timeout, what=f"all cells of {self.path}")
        return self.errors()

    def errors(self) -> list[str]:
        """The errors in the cells' outputs."""
        found: list[str] = self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets
                .filter(cell => cell.model.type === 'code')
                .flatMap(cell => cell.model.outputs.toJSON())
                .filter(output => output.output_type === 'error')
                .map(output => output.ename + ': ' + output.evalue)"""
        )
        return found

    def python(self, expression: str) -> Any:
        """Evaluate a Python expression in the notebook's kernel; its value must fit into JSON."""
        reply = promised(
            self.page,
            """async (expression) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const asked = {code: 'pass', store_history: false, user_expressions: {value: expression}};
                const reply = await kernel.requestExecute(asked).done;
                return reply.content.user_expressions.value;
            }""",
            f"__import__('json').dumps({expression}, default=lambda value: getattr(value, 'tolist', value.__str__)())",
            what=expression,
        )
        if reply["status"] != "ok":
            raise RuntimeError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        return json.loads(ast.literal_eval(reply["data"]["text/plain"]))

    def until(self, expression: str, timeout: float = 60) -> Any:
        """Wait until a Python expression is true in the kernel."""
        return eventually(self.page, lambda: self.python(expression), bool, timeout, f"{expression}: ")

    def run(self, code: str) -> None:
        """Run Python statements in the notebook's kernel, outside its cells."""
        status = promised(
            self.page,
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const reply = await kernel.requestExecute({code: code, store_history: false}).done;
                return reply.content.status + ' ' + (reply.content.evalue || '');
            }""",
            code,
            what=code,
        )
        assert status.startswith("ok"), status

    def figures(self, within: str = "body") -> list[dict[str, Any]]:
        """What plotly draws inside a selector: `data` (a list of traces) and `title` of each figure."""
        return figures(self.page, within)

    def restart(self) -> None:
        """Restart the kernel, as a user does after a crash; outputs stay."""
        script = "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
        promised(self.page, script, what="restarting the kernel")
        self.wait_idle()

    def close(self) -> None:
        """Shut the kernel down, so that the next notebook has the memory."""
        script = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
        promised(self.page, script, what="shutting the kernel down")


def promised(page: Page, script: str, given: Any = None, *, timeout: float = 120, what: str) -> Any:
    """What JavaScript's promise becomes; Playwright alone would wait for a lost reply for ever."""
    answers = page.evaluate(
        f"""async ([given, seconds]) => {{
            let timer;
            const late = new Promise((resolve) => {{ timer = setTimeout(() => resolve([]), 1000 * seconds); }});
            const kept = Promise.resolve(({script})(given)).then((value) => [value]);
            try {{ return await Promise.race([kept, late]); }} finally {{ clearTimeout(timer); }}
        }}""",
        [given, timeout],
    )
    if not answers:
        raise TimeoutError(f"no answer in {timeout:g} s to {what}")
    return answers[0]


def eventually(
    page: Page, ask: Callable[[], T], right: Callable[[T], object], timeout: float = 60, what: str = ""
) -> T:
    """Ask until the answer is right, and give it; what a browser shows follows its kernel with a delay.

    While a figure is drawn anew it, or its traces, may be missing: a lookup that fails is no answer yet.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            answer = ask()
            if right(answer):
                return answer
            still: object = answer
        except (LookupError, ValueError) as error:
            still = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}after {timeout:g} s still {str(still)[:600]}")
        page.wait_for_timeout(100)


def figures(page: Page, within: str = "body") -> list[dict[str, Any]]:
    """What plotly draws inside a selector, numbers as plain lists."""
    found: list[dict[str, Any]] = page.evaluate(
        """(within) => {
            const plain = (value) => {
                if (ArrayBuffer.isView(value) || Array.isArray(value)) return Array.from(value, plain);
                if (value && typeof value === 'object') {
                    if (value._inputArray) return plain(value._inputArray);
                    return Object.fromEntries(Object.entries(value)
                        .filter(([name]) => !name.startsWith('_')).map(([name, one]) => [name, plain(one)]));
                }
                return value;
            };
            return [...document.querySelectorAll(within + ' .js-plotly-plot')].map((plot) => ({
                data: plain(plot.data || []),
                title: (plot.querySelector('.gtitle') || {textContent: ''}).textContent,
            }));
        }""",
        within,
    )
    return found


def slide(page: Page, selector: str, steps: int = 1) -> None:
    """Move an ipywidgets slider by the keyboard: right for positive steps, left for negative ones."""
    page.locator(f"{selector} .noUi-handle").first.focus()
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")


def choose(page: Page, selector: str, label: str) -> None:
    """Choose an entry of an ipywidgets Dropdown by its label."""
    page.locator(f"{selector} select").first.select_option(label=label)


def type_text(page: Page, selector: str, text: str) -> None:
    """Replace the text of an ipywidgets Text field and leave it, so that the change is sent."""
    field_ = page.locator(f"{selector} input").first
    field_.fill(text)
    field_.press("Tab")
