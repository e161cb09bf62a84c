"""With the offline switch on no name is looked up and no connection leaves, whatever is done and by which child."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.servers import Gate

# Brings the loopback up in a network of a process's own, and goes on as the command that follows.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
    fcntl.ioctl(asked, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execv(sys.argv[1], sys.argv[1:])
"""
REFUSED = """
try:
    {call}
except lk.errors.LdmKitError as error:
    assert "offline switch is on" in str(error), error
else:
    raise AssertionError("it was not refused")
"""
# What each entry point does that could ask the network; the first is run with the switch off.
ENTRY_POINTS = {
    "load_model(offline=True)": "import huggingface_hub, diffusers, transformers\nimport ldm_kit as lk, ldm_kit.errors"
    + REFUSED.format(call="lk.load_model('sd-turbo', offline=True)"),
    "load_model": "import os; os.environ['LDM_KIT_OFFLINE'] = '1'\nimport ldm_kit as lk, ldm_kit.errors\n"
    "net = lk.load_model('tiny-ldm', device='cpu')\n"
    + "".join(
        REFUSED.format(call=f"lk.load_model({name!r})")
        for name in ("sd-turbo", "kandinsky-2.2", "vision:facebook/dinov2-base", "text:sd1.5")
    ),
    "load_dataset, extract, odd_one_out": "data = lk.load_dataset('emoji')\n"
    "some = data.stimuli[:4]\n"
    "store = lk.extract(net, some, blocks='mid_block', noise_levels=[0.5], out='store', progress=False)\n"
    "lk.look(net, some, some.names[0], [0.5], 'mid_block')\n"
    "lk.odd_one_out(store, [[0, 1, 2], [1, 2, 3]])",
    "fetch_things": REFUSED.format(call="lk.fetch_things(folder='things', progress=False)"),
    "figures and PNGs": "import plotly.graph_objects as go\n"
    "results = lk.RunRecord('results')\n"
    "results.figure(go.Figure(go.Scatter(y=[1, 2], name='$x$')), 'one')\n"
    "results.close()",
    "batch, its kernel and its report": "from ldm_kit.batch.__main__ import main\n"
    "import nbformat\n"
    "from nbformat.v4 import new_code_cell, new_notebook\n"
    "kernel = 'import ldm_kit as lk, ldm_kit.errors' + KERNEL\n"
    "nbformat.write(new_notebook(cells=[new_code_cell(kernel)]), 'one.ipynb')\n"
    "assert main(['one.ipynb', '--out', 'batch']) == 0",
    "the served game": "import os, signal, threading, urllib.request\n"
    "from ldm_kit.game.server import listen, serve\n"
    "game = lk.game.new_game(net, data, 'game', blocks='mid_block', n_candidates=20, n_trials=6, n_catch=1)\n"
    "sockets, page = listen('127.0.0.1', 0), []\n"
    "def visit():\n"
    "    try:\n"
    "        address = f'http://127.0.0.1:{sockets[0].getsockname()[1]}/'\n"
    "        page.append(urllib.request.urlopen(address).read())\n"
    "    finally:\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "threading.Timer(0.5, visit).start()\n"
    "serve(game, 'answers', sockets)\n"
    "assert b'page.js' in page[0]",
}
SD_TURBO = REFUSED.format(call="lk.load_model('sd-turbo')")
KERNEL = f"KERNEL = {SD_TURBO!r}"


@functools.cache
def a_network_of_its_own() -> list[str]:
    """What makes a command run without any route; nothing where the system does not let us."""
    command = ["unshare", "--net", "--map-root-user", sys.executable, "-c", ALONE]
    try:
        subprocess.run([*command, "/bin/true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return command


def asked_by(entries: list[str], folder: Path) -> list[str]:
    """What entry points of `ENTRY_POINTS`, run by one child, look up or connect to: one line an attempt."""
    gate = Gate()
    code = "\n".join([KERNEL, *(ENTRY_POINTS[entry] for entry in entries)])
    environment = {**os.environ, **gate.variables(), "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    switches = ("LDM_KIT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "LDM_KIT_MODELS")
    for name in list(environment):  # a proxy would be asked instead of the names that are looked up
        if name in switches or name.lower().endswith("_proxy"):
            del environment[name]
    try:
        done = subprocess.run(
            [*a_network_of_its_own(), sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return gate.asked
    finally:
        gate.close()


@pytest.mark.slow
def test_no_entry_point_asks_the_network_with_the_switch_on(tmp_path: Path) -> None:
    assert asked_by(list(ENTRY_POINTS), tmp_path) == []


def test_the_libraries_are_told_before_they_are_imported() -> None:
    code = (
        "import ldm_kit, huggingface_hub.constants as c; print(c.HF_HUB_OFFLINE, c.HF_HUB_DISABLE_TELEMETRY)"
    )
    environment = {**os.environ, "LDM_KIT_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
